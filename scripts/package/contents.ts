/**
 * What is in the packages, and where. All of it is made from the tree of commands, the schema and files of the project;
 * what is missing is an error, so that no package lacks it in silence.
 */
import { readdirSync, readFileSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import packageJson from "../../package.json" with { type: "json" };
import { LINKS } from "../../src/commands/command-tree.ts";
import { completedLinks } from "../../src/commands/completions.ts";
import { DOCUMENT_KINDS, type DocumentKind } from "../../src/config/document-kinds.ts";
import { outputOf } from "../command.ts";
import { manualPages } from "../man.ts";
import { billOfMaterials } from "./sbom.ts";
import type { StagedTree } from "./staged-tree.ts";

const ROOT = resolve(import.meta.dir, "..", "..");

/** Places that differ between a package of Debian and a tarball. */
export interface Places {
  readonly bin: string;
  readonly share: string;
  readonly documents: string;
  readonly units: string;
  readonly systemUsers: string;
  readonly manualIsCompressed: boolean;
}

export const DEBIAN_PLACES: Places = {
  bin: "usr/bin",
  share: "usr/share",
  documents: "usr/share/doc/ubiblk",
  units: "usr/lib/systemd/system",
  systemUsers: "usr/lib/sysusers.d",
  manualIsCompressed: true,
};

export const TARBALL_PLACES: Places = {
  bin: "bin",
  share: "share",
  documents: "share/doc/ubiblk",
  units: "lib/systemd/system",
  systemUsers: "lib/sysusers.d",
  manualIsCompressed: false,
};

export interface Product {
  /** The executable, or what stands for it. */
  readonly packedPath: string;
  readonly dateSeconds: number;
  readonly texts: ProductTexts;
}

/** What the executable itself writes: a list of words after its name, and the text. */
export type ProductTexts = ReadonlyMap<string, string>;

export async function productTexts(executablePath: string): Promise<ProductTexts> {
  const kinds = DOCUMENT_KINDS.flatMap((kind) => [
    configWords("example", kind),
    configWords("schema", kind),
  ]);
  const all = [...COMPLETIONS.map(([shell]) => `completions ${shell}`), ...kinds];
  const texts = new Map<string, string>();
  for (const words of all) {
    texts.set(words, await outputOf([executablePath, ...words.split(" ")]));
  }
  return texts;
}

export async function addProduct(
  tree: StagedTree,
  places: Places,
  { packedPath, dateSeconds, texts }: Product,
): Promise<void> {
  const { bin, share, documents, units, systemUsers } = places;
  const executable = readFileSync(packedPath);
  tree.add(`${bin}/ubiblk`, executable, 0o755);
  await addManual(tree, places);
  for (const [shell, path] of COMPLETIONS) {
    tree.add(`${share}/${path}`, writtenText(texts, `completions ${shell}`));
  }
  for (const kind of DOCUMENT_KINDS) {
    const example = writtenText(texts, configWords("example", kind));
    tree.add(`${documents}/examples/${kind}.toml`, example);
    const schema = writtenText(texts, configWords("schema", kind));
    tree.add(`${share}/ubiblk/schema/${kind}.schema.json`, schema);
  }
  for (const name of filesIn("docs/systemd", /\.(service|socket)$/)) {
    tree.add(`${units}/${name}`, textOf(`docs/systemd/${name}`));
  }
  for (const name of filesIn("docs/monitoring", /\.(json|yml)$/)) {
    tree.add(`${share}/ubiblk/monitoring/${name}`, textOf(`docs/monitoring/${name}`));
  }
  const pages = filesIn("docs", /\.md$/).map((name) => `docs/${name}`);
  for (const path of ["README.md", "SECURITY.md", ...pages]) {
    tree.add(`${documents}/${basename(path)}`, documentText(path));
  }
  const materials = billOfMaterials({ executable, dateSeconds });
  tree.add(`${documents}/sbom.cdx.json`, `${JSON.stringify(materials, undefined, 2)}\n`);
  tree.add(`${systemUsers}/ubiblk.conf`, textOf("docs/systemd/ubiblk.sysusers.conf"));
}

/** The names of the reference's programs, with their manual pages and completions. */
export function addReferenceNames(tree: StagedTree, places: Places): void {
  for (const name of completedLinks(LINKS)) {
    tree.link(`${places.share}/bash-completion/completions/${name}`, "ubiblk");
    tree.link(`${places.share}/fish/vendor_completions.d/${name}.fish`, "ubiblk.fish");
  }
  for (const [name, command] of Object.entries(LINKS)) {
    tree.link(`${places.bin}/${name}`, "ubiblk");
    if (name !== `ubiblk-${command}`) {
      tree.link(`${places.share}/man/man1/${name}.1.gz`, `ubiblk-${command}.1.gz`);
    }
  }
}

/** `LICENSE`, and the notices of what the executable contains. */
export function copyrightText(): string {
  return [
    `ubiblk ${packageJson.version}`,
    "Copyright: the authors of ubiblk",
    "License: GNU Affero General Public License, version 3 only; its text follows, and then the notices of what",
    "the executable contains.",
    textOf("LICENSE"),
    textOf("NOTICE"),
  ].join("\n\n");
}

// --- internal ---

function configWords(tool: "example" | "schema", kind: DocumentKind): string {
  return `config ${tool} --kind ${kind}`;
}

function writtenText(texts: ProductTexts, words: string): string {
  const text = texts.get(words);
  if (text === undefined || text === "") {
    throw new Error(`ubiblk ${words} wrote nothing`);
  }
  return text;
}

const COMPLETIONS = [
  ["bash", "bash-completion/completions/ubiblk"],
  ["zsh", "zsh/vendor-completions/_ubiblk"],
  ["fish", "fish/vendor_completions.d/ubiblk.fish"],
] as const;

async function addManual(tree: StagedTree, { share, manualIsCompressed }: Places): Promise<void> {
  for (const [file, text] of await manualPages()) {
    const path = `${share}/man/man${file.split(".").at(-1)}/${file}`;
    if (manualIsCompressed) {
      tree.addCompressed(path, text);
    } else {
      tree.add(path, text);
    }
  }
}

/** What its links name stands elsewhere in a package than in the project. */
function documentText(path: string): string {
  return textOf(path)
    .replaceAll("](docs/", "](")
    .replaceAll("](../", "](")
    .replaceAll(/\]\((LICENSE|NOTICE)\)/g, "](copyright)")
    .replaceAll("](systemd)", "](../../../lib/systemd/system)")
    .replaceAll("](monitoring/", "](../../ubiblk/monitoring/");
}

function filesIn(folder: string, pattern: RegExp): readonly string[] {
  const names = readdirSync(join(ROOT, folder)).filter((name) => pattern.test(name));
  if (names.length === 0) {
    throw new Error(`${folder}: there is no file like ${pattern}`);
  }
  return names.sort();
}

function textOf(path: string): string {
  return readFileSync(join(ROOT, path), "utf8");
}
