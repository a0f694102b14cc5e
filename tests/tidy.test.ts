/**
 * The rules of this code base that a program can check and that the type checker and the linter do not:
 * sizes of files, the floors of the architecture, words that do not belong here, tables that must agree.
 */
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import packageJson from "../package.json" with { type: "json" };
import packageLock from "../package-lock.json" with { type: "json" };
import { ERROR_CODES } from "../src/errors.ts";

const ROOT = resolve(import.meta.dir, "..");
const LINES_MAX = 500;
/** This file names what it looks for. */
const OWN = "tests/tidy.test.ts";

/** The areas of src/ from the ground up. An import runs down: to a lower floor, or stays in its area. */
const FLOORS: readonly (readonly string[])[] = [
  ["errors.ts", "log"],
  ["log.ts"],
  ["formats", "ffi"],
  ["config"],
  ["virtio", "disk"],
  ["archive", "remote"],
  ["sources"],
  ["stripes"],
  ["device"],
  ["vhost", "ublk", "rpc", "serve", "copy", "service"],
  ["top", "bench", "doctor", "init", "upgrade"],
  ["metrics"],
  ["commands", "worker.ts"],
  ["main.ts"],
];

/** Areas that may use less than what lies below them. */
const NARROW_AREAS: Readonly<Record<string, readonly string[]>> = {
  formats: ["errors.ts"], // pure: no I/O, no clock, no native call
  bench: ["formats", "ffi", "errors.ts", "log.ts"], // measures the product, so it shares none of it
  top: ["formats", "ffi", "errors.ts", "log.ts"], // a client of any backend, so it shares none of it
};

const sources = filesOf("src/**/*.{ts,tsx}");
const scripts = filesOf("{scripts,tests}/**/*.{ts,sh}");
const native = filesOf("{ffi,tests}/**/*.{c,h}");
const documents = filesOf("{*.md,docs/**/*.md}");

test("file length: at most 500 lines, or the file says at its top why not", () => {
  const long = [...sources, ...scripts, ...native].filter(
    (file) =>
      textOf(file).split("\n").length > LINES_MAX + 1 &&
      !/longer than \d+ lines/i.test(textOf(file).slice(0, 2000)),
  );
  expect(long).toEqual([]);
});

test("source files: each begins with a comment that says what it is", () => {
  const bare = [...sources, ...native].filter(
    (file) => !file.includes(".test.") && !textOf(file).trimStart().startsWith("/*"),
  );
  expect(bare).toEqual([]);
});

test("areas: every folder of src is on a floor, and no floor is a drawer", () => {
  const known = new Set(FLOORS.flat());
  const areas = new Set(sources.map(areaOf));
  expect([...areas].filter((area) => !known.has(area))).toEqual([]);
  const drawers = sources.filter((file) => /\/(utils?|common|helpers?|misc)[./]/.test(file));
  expect(drawers).toEqual([]);
});

test("imports: they run down the floors", () => {
  const wrong = productImports().filter(
    ({ from, to }) => areaOf(from) !== areaOf(to) && floorOf(areaOf(to)) >= floorOf(areaOf(from)),
  );
  expect(wrong).toEqual([]);
});

test("imports: formats stay pure and the bench shares nothing with what it measures", () => {
  const wrong = productImports().filter(({ from, to }) => {
    const allowed = NARROW_AREAS[areaOf(from)];
    return allowed !== undefined && areaOf(from) !== areaOf(to) && !allowed.includes(areaOf(to));
  });
  expect(wrong).toEqual([]);
  const impure = sources.filter(
    (file) => areaOf(file) === "formats" && /from "(node:|bun)/.test(productText(file)),
  );
  expect(impure).toEqual([]);
});

test("imports: the product uses neither tests nor scripts", () => {
  const wrong = sources
    .filter((file) => !file.includes(".test."))
    .flatMap((file) => importsOf(file).map((to) => `${file} -> ${to}`))
    .filter((arrow) => /-> (tests|scripts)\//.test(arrow));
  expect(wrong).toEqual([]);
});

test("type escapes: nothing switches the type checker or the linter off without a reason", () => {
  const escapes = [/@ts-(ignore|nocheck|expect-error)/, /\bas any\b/, /\bas unknown as\b/];
  const unexplained = /biome-ignore(?!.*: .{10})/;
  const files = [...sources, ...scripts].filter((file) => file !== OWN);
  expect(findings(files, [...escapes, unexplained])).toEqual([]);
});

test("words: no unfinished work and nothing about how the work was done", () => {
  const patterns = [
    /\b(TODO|FIXME|XXX)\b/,
    /\bissue #?\d/i,
    /\b(this|another|previous|next) session of the project\b/i,
    /\.\.\/shared\b/,
    /(?<![\w/.])\/(work|home)\/\w/,
  ];
  const files = [...sources, ...scripts, ...native, ...documents].filter((file) => file !== OWN);
  expect(findings(files, patterns)).toEqual([]);
});

test("merges: no file has both sides of one in it", () => {
  const files = [...sources, ...scripts, ...native, ...documents];
  expect(findings(files, [/^(<{7}|>{7}) /])).toEqual([]);
});

test("error codes: the list and the manual agree, row by row", () => {
  const rows = [...textOf("docs/errors.md").matchAll(/^\|\s*`?(E_[A-Z_]+)`?\s*\|/gm)];
  expect(rows.map((row) => row[1] ?? "").sort()).toEqual([...ERROR_CODES].sort());
});

test("error codes: each one is used", () => {
  const text = sources
    .filter((file) => file !== "src/errors.ts" && !file.includes(".test."))
    .map(textOf)
    .join("\n");
  expect(ERROR_CODES.filter((code) => !text.includes(`"${code}"`))).toEqual([]);
});

test("version: package.json is its only home", () => {
  expect(packageLock.version).toBe(packageJson.version);
  const copies = sources
    .filter((file) => !file.includes(".test."))
    .filter((file) => textOf(file).includes(`"${packageJson.version}"`));
  expect(copies).toEqual([]);
});

test("dependencies: every version is exact", () => {
  const versions = Object.entries({ ...packageJson.dependencies, ...packageJson.devDependencies });
  expect(versions.filter(([, version]) => !/^\d+\.\d+\.\d+$/.test(version))).toEqual([]);
});

// --- internal ---

function filesOf(pattern: string): readonly string[] {
  return [...new Bun.Glob(pattern).scanSync(ROOT)].sort();
}

function textOf(file: string): string {
  return readFileSync(join(ROOT, file), "utf8");
}

function productText(file: string): string {
  return file.includes(".test.") ? "" : textOf(file);
}

/** `vhost` for src/vhost/session.ts, `errors.ts` for src/errors.ts. */
/** Of a file outside all folders the file itself; its test belongs to it. */
function areaOf(file: string): string {
  return (file.split("/")[1] ?? file).replace(/\.test\.ts$/, ".ts");
}

function floorOf(area: string): number {
  return FLOORS.findIndex((floor) => floor.includes(area));
}

function productImports(): readonly { readonly from: string; readonly to: string }[] {
  return sources
    .filter((file) => !file.includes(".test."))
    .flatMap((from) => importsOf(from).map((to) => ({ from, to })))
    .filter(({ to }) => to.startsWith("src/"));
}

/** The project's own files that `file` imports, for types or lazily as well. */
function importsOf(file: string): readonly string[] {
  const matches = textOf(file).matchAll(/(?:\bfrom|\bimport)\s*\(?\s*"(\.[^"]+)"/g);
  return [...matches].map((match) => relative(ROOT, resolve(ROOT, dirname(file), match[1] ?? "")));
}

/** `file:line: text` of every line that one of the patterns matches. */
function findings(files: readonly string[], patterns: readonly RegExp[]): readonly string[] {
  return files.flatMap((file) =>
    textOf(file)
      .split("\n")
      .map((text, index) => ({ text, place: `${file}:${index + 1}` }))
      .filter(({ text }) => patterns.some((pattern) => pattern.test(text)))
      .map(({ text, place }) => `${place}: ${text.trim()}`),
  );
}
