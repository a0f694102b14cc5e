/** The manual pages: what has to be in them, and that the formatters have nothing to say against them. */
import { describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { wholeOutline } from "../src/commands/command-outline.ts";
import { COMMANDS } from "../src/commands/command-tree.ts";
import { skipUnlessInstalled } from "../tests/support/requires.ts";
import { runCommand } from "./command.ts";
import { pageName } from "./man/commands.ts";
import { keysOf, sectionsOf, variantsOf } from "./man/config.ts";
import { chapterFromMarkdown, chapterOf, inline } from "./man/markdown.ts";
import { manualPages } from "./man.ts";

const pages = await manualPages();
const outlines = await wholeOutline(COMMANDS, ["ubiblk"]);

test.each(outlines.map((outline) => [pageName(outline), outline] as const))(
  "%s(1): every flag, word, tool, example and exit code is in it",
  (name, { flags, words, tools, exitCodes, examples, path }) => {
    const text = plain(pages.get(`${name}.1`) ?? "");
    const wanted = [
      ...flags.flatMap(({ names }) => names),
      ...words.map((word) => word.name),
      ...tools.map((tool) => `${name}-${tool.name}(1)`),
      ...Object.keys(exitCodes),
      ...examples.map(([line]) => line),
      path.join(" "),
    ];
    expect(wanted.filter((each) => !text.includes(each))).toEqual([]);
  },
);

test("ubiblk(1): every command and every other page is in it", () => {
  const text = plain(pages.get("ubiblk.1") ?? "");
  const names = [...pages.keys()]
    .filter((file) => file !== "ubiblk.1")
    .map((file) => file.replace(/\.(\d)$/, "($1)"));
  expect(names.filter((name) => !text.includes(name))).toEqual([]);
});

test("ubiblk.toml(5): every key of every section is in it", () => {
  const text = plain(pages.get("ubiblk.toml.5") ?? "");
  const keys = [...sectionsOf().values()].flatMap((section) =>
    variantsOf(section).flatMap((variant) => keysOf(variant).map(({ name }) => name)),
  );
  expect(keys.length).toBeGreaterThan(60);
  expect(keys.filter((key) => !text.includes(key))).toEqual([]);
});

test("every page has a name, a date and the version, and refers to pages that there are", () => {
  const known = new Set([...pages.keys()].map((file) => file.replace(/\.(\d)$/, "($1)")));
  for (const [file, text] of pages) {
    expect(text).toMatch(/^\.TH "UBIBLK[^"]*" \d "\d{4}-\d\d-\d\d" "ubiblk [\d.]+" "ubiblk"$/m);
    expect(text).toContain(`.SH NAME\n`);
    const references = [...plain(text).matchAll(/\bubiblk[\w.-]*\(\d\)/g)].map(([name]) => name);
    expect({ file, unknown: references.filter((name) => !known.has(name)) }).toEqual({
      file,
      unknown: [],
    });
  }
});

describe("formatters", () => {
  const test = skipUnlessInstalled("mandoc");
  test("mandoc -T lint finds nothing", async () => {
    expect(await complaintsOf(["mandoc", "-T", "lint", "-W", "warning"])).toEqual([]);
  });

  const testGroff = skipUnlessInstalled("groff");
  testGroff("groff with all warnings finds nothing", async () => {
    expect(await complaintsOf(["groff", "-k", "-man", "-Tutf8", "-ww", "-z"])).toEqual([]);
  });
});

test("Markdown: blocks and what stands in a line", () => {
  const markdown = [
    "# Title",
    "## Part",
    "A `--flag` and a [link](to.md), *so* **much**.",
    ".leading dot",
    "",
    "- one",
    "  more",
    "1. two",
    "",
    "| a | b | c |",
    "|---|---|---|",
    "| `x\\|y` | 1 | |",
    "",
    "```sh",
    "# no heading",
    "a \\ b",
    "```",
    "## Next",
  ].join("\n");
  expect(chapterFromMarkdown("T", chapterOf(markdown, "## Part"))).toBe(
    [
      '.SH "T"',
      "A \\fB\\-\\-flag\\fR and a link, \\fIso\\fR \\fBmuch\\fR.",
      "\\&.leading dot",
      ".IP \\(bu 4",
      "one",
      "more",
      ".IP 1. 4",
      "two",
      ".TP",
      "\\fBx|y\\fR",
      "b: 1",
      ".br",
      "c: none",
      ".PP",
      ".RS 4",
      ".EX",
      "# no heading",
      "a \\e b",
      ".EE",
      ".RE",
    ].join("\n"),
  );
  expect(inline("2 * 3 * 4")).toBe("2 * 3 * 4");
});

// --- internal ---

/** Without fonts and escapes, as far as pages of ours have them. */
function plain(roff: string): string {
  return roff
    .replace(/\\f[BIR]|\\&/g, "")
    .replaceAll("\\-", "-")
    .replaceAll("\\(aq", "'")
    .replaceAll("\\(ga", "`")
    .replaceAll("\\(ha", "^")
    .replaceAll("\\(ti", "~")
    .replaceAll("\\e", "\\");
}

async function complaintsOf(command: readonly string[]): Promise<readonly string[]> {
  const folder = mkdtempSync(join(tmpdir(), "ubiblk-man-"));
  try {
    for (const [file, text] of pages) {
      writeFileSync(join(folder, file), text);
    }
    const files = [...pages.keys()];
    const { stdout, stderr } = await runCommand([...command, ...files], { cwd: folder });
    return `${stdout}${stderr}`.split("\n").filter((line) => line !== "");
  } finally {
    rmSync(folder, { recursive: true });
  }
}
