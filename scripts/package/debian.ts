/** Packages for Debian and what comes of it, built by dpkg-deb alone. */
import { chmodSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import packageJson from "../../package.json" with { type: "json" };
import { outputOf } from "../command.ts";
import { copyrightText } from "./contents.ts";
import type { StagedTree } from "./staged-tree.ts";

export interface Control {
  readonly name: string;
  readonly architecture: string;
  readonly depends: string;
  readonly summary: string;
  /** Paragraphs. */
  readonly description: readonly string[];
  readonly scripts?: Readonly<Record<string, string>>;
  readonly lintianOverrides?: readonly string[];
}

export interface DebianBuild {
  readonly tree: StagedTree;
  readonly control: Control;
  readonly outputFolder: string;
  readonly compression: "xz" | "none";
  readonly dateSeconds: number;
}

/** Returns the path of the package. */
export async function buildDebian(build: DebianBuild): Promise<string> {
  const { tree, control, outputFolder, compression, dateSeconds } = build;
  const { name, architecture, scripts = {}, lintianOverrides = [] } = control;
  const documents = `usr/share/doc/${name}`;
  tree.add(`${documents}/copyright`, copyrightText());
  tree.addCompressed(`${documents}/changelog`, changelog(name, dateSeconds));
  const overrides = [...LINTIAN_OVERRIDES, ...lintianOverrides];
  tree.add(
    `usr/share/lintian/overrides/${name}`,
    overrides.map((line) => `${name}: ${line}\n`).join(""),
  );
  const sums = checksums(tree);
  tree.add("DEBIAN/control", controlText(control, installedKib(tree)));
  tree.add("DEBIAN/md5sums", sums);
  for (const [file, text] of Object.entries(scripts)) {
    tree.add(`DEBIAN/${file}`, text, 0o755);
  }
  setFolderModes(tree.folder);
  tree.seal();
  const path = join(outputFolder, `${name}_${packageJson.version}_${architecture}.deb`);
  // One thread: its result does not depend on how many the machine has.
  const flags = ["--root-owner-group", `-Z${compression}`, "-z1", "--threads-max=1"];
  await outputOf(["dpkg-deb", ...flags, "--build", tree.folder, path], {
    env: { ...process.env, SOURCE_DATE_EPOCH: String(dateSeconds) },
    timeoutMs: 1_800_000,
  });
  return path;
}

/** The oldest glibc that has all that `path` asks for, such as `2.34`. */
export async function neededGlibc(paths: readonly string[]): Promise<string> {
  const versions: string[] = [];
  for (const path of paths) {
    const symbols = await outputOf(["readelf", "--wide", "--version-info", path]);
    versions.push(...[...symbols.matchAll(/GLIBC_(\d+\.\d+)/g)].map(([, version = ""]) => version));
  }
  const newest = versions.sort((a, b) => a.localeCompare(b, "en", { numeric: true })).at(-1);
  if (newest === undefined) {
    throw new Error(`${paths.join(", ")}: no version of glibc is named`);
  }
  return newest;
}

// --- internal ---

/** The notices are whole on every system. */
const LINTIAN_OVERRIDES = ["copyright-file-contains-full-apache-2-license"];
const MAINTAINER = "The authors of ubiblk <ubiblk@ubiblk.invalid>";

function controlText(control: Control, installedSize: number): string {
  const { name, architecture, depends, summary, description } = control;
  const paragraphs = description.map((text) => ` ${text.replaceAll("\n", "\n ")}`).join("\n .\n");
  return [
    `Package: ${name}`,
    `Version: ${packageJson.version}`,
    `Architecture: ${architecture}`,
    `Maintainer: ${MAINTAINER}`,
    `Installed-Size: ${installedSize}`,
    `Depends: ${depends}`,
    "Section: admin",
    "Priority: optional",
    `Description: ${summary}`,
    `${paragraphs}\n`,
  ].join("\n");
}

function changelog(name: string, dateSeconds: number): string {
  const date = new Date(dateSeconds * 1000).toUTCString().replace("GMT", "+0000");
  const { version } = packageJson;
  return `${name} (${version}) unstable; urgency=medium\n\n  * Version ${version}.\n\n -- ${MAINTAINER}  ${date}\n`;
}

function checksums(tree: StagedTree): string {
  return tree
    .files()
    .filter((path) => statSync(join(tree.folder, path), { throwIfNoEntry: false })?.isFile())
    .map((path) => {
      const content = readFileSync(join(tree.folder, path));
      return `${new Bun.CryptoHasher("md5").update(content).digest("hex")}  ${path}\n`;
    })
    .join("");
}

function installedKib(tree: StagedTree): number {
  return tree.files().reduce((sum, path) => {
    const { size = 0 } = statSync(join(tree.folder, path), { throwIfNoEntry: false }) ?? {};
    return sum + Math.ceil(size / 1024);
  }, 0);
}

function setFolderModes(folder: string): void {
  chmodSync(folder, 0o755);
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    if (entry.isDirectory()) {
      setFolderModes(join(folder, entry.name));
    }
  }
}
