/** What the rows of archives and remote stripes work on: a disk of mixed data, its archives, and timed programs. */
import { existsSync, mkdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { outputOf } from "../../scripts/command.ts";
import { Random } from "../../src/bench/random.ts";
import { type DiskFiles, EXECUTABLE, writeDiskConfig } from "../support/backend.ts";
import { MIB } from "./lazy-disk.ts";

const TIMEOUT_MS = 600_000;
const PIECE_BYTES = MIB;
/** Of a piece of text: about as compressible as program files. */
const WORDS = 4096;

/** A quarter of zeros, a quarter of noise, the rest text: pieces of 1 MiB in turn. */
export async function mixedFile(path: string, sizeBytes: number): Promise<string> {
  if (existsSync(path) && statSync(path).size === sizeBytes) {
    return path;
  }
  const random = new Random(7);
  const words = Array.from({ length: WORDS }, () =>
    (random.below(2 ** 31) * 64 + random.below(64)).toString(36).slice(0, 3 + random.below(7)),
  );
  const writer = Bun.file(path).writer();
  for (let piece = 0; piece < sizeBytes / PIECE_BYTES; piece++) {
    writer.write(pieceOf(piece, words, random));
    await writer.flush();
  }
  await writer.end();
  await outputOf(["sync", "--data", path], { timeoutMs: TIMEOUT_MS });
  return path;
}

export interface Timed {
  readonly seconds: number;
  readonly peakMib: number;
}

/** Runs a program to its end, which must be success. */
export async function timed(command: readonly string[]): Promise<Timed> {
  const beginMs = performance.now();
  const child = Bun.spawn([...command], { stdin: "ignore", stdout: "ignore", stderr: "pipe" });
  const [said, code] = await Promise.all([new Response(child.stderr).text(), child.exited]);
  const seconds = (performance.now() - beginMs) / 1000;
  if (code !== 0) {
    throw new Error(`${command.join(" ")} ended with ${code}: ${said}`);
  }
  return { seconds, peakMib: (child.resourceUsage()?.maxRSS ?? Number.NaN) / MIB };
}

/** The same for a line of shell, with what it leaves behind on the file system of `folder` made durable. */
export function timedScript(script: string, folder: string): Promise<Timed> {
  return timed(["sh", "-ec", `${script}\nsync -f '${folder}'`]);
}

export interface ArchivedDisk {
  readonly folder: string;
  readonly files: DiskFiles;
}

/** A plain disk of which every stripe is data, and no metadata says otherwise. */
export async function makeArchivedDisk(folder: string, dataPath: string): Promise<ArchivedDisk> {
  mkdirSync(folder, { recursive: true });
  const moreConfig = `metadata_path = "${join(folder, "metadata")}"`;
  const files = writeDiskConfig({ folder, dataPath, isEncrypted: false, moreConfig });
  await outputOf([EXECUTABLE, "init-metadata", "--force", "--config", files.configPath]);
  return { folder, files };
}

/** A document about an archive in `path`: `section` is `target` or `archive`. Its key lies beside it. */
export function writeArchiveDocument(options: {
  readonly folder: string;
  readonly section: "target" | "archive";
  readonly path: string;
}): string {
  const { folder, section, path } = options;
  const document = join(folder, `${section}.toml`);
  const store = `storage = "filesystem"\npath = "${path}"\narchive_kek.ref = "kek"`;
  writeFileSync(document, `[${section}]\n${store}\n${kekSection(folder)}${PERMISSION}`, {
    mode: 0o600,
  });
  return document;
}

/** `[secrets.kek]`: the key that archives of this folder are made with. */
export function kekSection(folder: string): string {
  const path = join(folder, "kek");
  if (!existsSync(path)) {
    writeFileSync(path, crypto.getRandomValues(new Uint8Array(32)), { mode: 0o600 });
  }
  return `[secrets.kek]\nsource.file = "${path}"\n`;
}

export const PERMISSION = "[danger_zone]\nenabled = true\nallow_secret_over_regular_file = true\n";

/** An archive of the disk in an emptied folder. */
export function archiveTo(options: {
  readonly disk: ArchivedDisk;
  readonly path: string;
  readonly flags: readonly string[];
}): Promise<Timed> {
  const { disk, path, flags } = options;
  rmSync(path, { recursive: true, force: true });
  const target = writeArchiveDocument({ folder: disk.folder, section: "target", path });
  const command = [EXECUTABLE, "archive", "-f", disk.files.configPath, "--target-config", target];
  return timed([...command, "--quiet", ...flags]);
}

// --- internal ---

function pieceOf(piece: number, words: readonly string[], random: Random): Uint8Array {
  const bytes = Buffer.alloc(PIECE_BYTES);
  switch (piece % 4) {
    case 0:
      return bytes;
    case 1:
      for (let at = 0; at < PIECE_BYTES; at += 65_536) {
        crypto.getRandomValues(bytes.subarray(at, at + 65_536));
      }
      return bytes;
    default:
      bytes.write(textOf(words, random), "latin1");
      return bytes;
  }
}

function textOf(words: readonly string[], random: Random): string {
  const parts: string[] = [];
  for (let length = 0; length < PIECE_BYTES; ) {
    const word = words[Math.min(random.below(WORDS), random.below(WORDS))] ?? "";
    parts.push(word);
    length += word.length + 1;
  }
  return parts.join(" ");
}
