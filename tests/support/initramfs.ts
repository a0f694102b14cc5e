/**
 * A root file system for the guest's kernel: the "newc" cpio format (Documentation/driver-api/
 * early-userspace/buffer-format.rst). The kernel unpacks several archives laid one behind the other.
 *
 *   +-----------------+----------+-----+----------+-----+   numbers are 8 hexadecimal digits,
 *   | header 110 byte | name, \0 | pad | content  | pad |   name and content end on a multiple of 4
 *   +-----------------+----------+-----+----------+-----+
 */
import { readFileSync } from "node:fs";
import { dirname } from "node:path";
import { outputOf } from "../../scripts/command.ts";

export interface ArchiveEntry {
  /** Without a leading slash. Its folders are added where they are missing. */
  readonly path: string;
  readonly content: Uint8Array | string;
  /** Permission bits; files are readable and executable by all unless said otherwise. */
  readonly mode?: number;
  readonly kind?: "file" | "link";
}

/** Packs the entries; a link's content is where it points. */
export function packArchive(entries: readonly ArchiveEntry[]): Uint8Array {
  const folders = new Set(entries.flatMap((entry) => foldersAbove(entry.path)));
  const parts: Uint8Array[] = [];
  let inode = 1;
  for (const path of [...folders].sort()) {
    parts.push(packEntry({ path, content: new Uint8Array(0), mode: 0o755, kind: 0o040000, inode }));
    inode += 1;
  }
  for (const entry of entries) {
    const kind = entry.kind === "link" ? 0o120000 : 0o100000;
    const content = Buffer.from(entry.content);
    parts.push(packEntry({ path: entry.path, content, mode: entry.mode ?? 0o755, kind, inode }));
    inode += 1;
  }
  const end = { path: "TRAILER!!!", content: new Uint8Array(0), mode: 0, kind: 0, inode: 0 };
  return Buffer.concat([...parts, packEntry(end)]);
}

/** A program of this machine, laid at `target`, and the libraries that it loads, where they are here. */
export async function programEntries(
  path: string,
  target: string,
): Promise<readonly ArchiveEntry[]> {
  const output = await outputOf(["ldd", path]);
  const libraries = [...output.matchAll(/(\/\S+) \(0x/g)].map((match) => match[1] ?? "");
  return [
    { path: target, content: readFileSync(path) },
    ...libraries.map((file) => ({ path: file.slice(1), content: readFileSync(file) })),
  ];
}

// --- internal ---

interface PackedEntry {
  readonly path: string;
  readonly content: Uint8Array;
  readonly mode: number;
  /** The type bits of st_mode. */
  readonly kind: number;
  readonly inode: number;
}

function packEntry(entry: PackedEntry): Uint8Array {
  const name = Buffer.from(`${entry.path}\0`);
  const linkCount = entry.kind === 0o040000 ? 2 : 1;
  const fields = [
    entry.inode,
    entry.kind | entry.mode,
    0, // owner
    0, // group
    linkCount,
    0, // time of change
    entry.content.length,
    0, // device, major and minor
    0,
    0, // device of a device node, major and minor
    0,
    name.length,
    0, // checksum, unused in this format
  ];
  const header = Buffer.from(`070701${fields.map(hexadecimal).join("")}`);
  return Buffer.concat([
    header,
    name,
    padding(header.length + name.length),
    entry.content,
    padding(entry.content.length),
  ]);
}

function hexadecimal(value: number): string {
  return value.toString(16).padStart(8, "0");
}

function padding(lengthBytes: number): Uint8Array {
  return new Uint8Array((4 - (lengthBytes % 4)) % 4);
}

function foldersAbove(path: string): readonly string[] {
  const folder = dirname(path);
  return folder === "." ? [] : [...foldersAbove(folder), folder];
}
