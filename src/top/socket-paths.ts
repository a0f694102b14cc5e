/**
 * The sockets that the user named: paths, lists with commas, and patterns (`/run/ubiblk/*.rpc`), which
 * are looked up again and again, so that a backend that starts later is found.
 */
import { readdirSync, type Stats, statSync } from "node:fs";
import { join, resolve } from "node:path";
import { UbiError } from "../errors.ts";

/** Sockets that are followed at most; further ones are left out, and the view says so. */
export const SOCKETS_MAX = 64;

export interface SocketNames {
  readonly paths: readonly string[];
  readonly patterns: readonly string[];
}

/** Tells paths from lists and patterns. What exists under the very name is a path. @throws UbiError E_USAGE */
export function parseSocketNames(texts: readonly string[]): SocketNames {
  const names = texts.flatMap((text) => (exists(text) ? [text] : text.split(",")));
  if (names.length === 0 || names.includes("")) {
    throw new UbiError("E_USAGE", "the path of an RPC socket is missing: it is empty");
  }
  const patterns = names.filter((name) => WILDCARD.test(name) && !exists(name));
  return { paths: names.filter((name) => !patterns.includes(name)), patterns };
}

/** The sockets of `names` that there are now, and those named outright; each once. */
export function findSockets({ paths, patterns }: SocketNames): readonly string[] {
  const found = patterns.flatMap(expand).filter(isSocket);
  const unique = new Map<string, string>();
  for (const path of [...paths, ...found]) {
    if (!unique.has(resolve(path))) {
      unique.set(resolve(path), path);
    }
  }
  return [...unique.values()];
}

// --- internal ---

const WILDCARD = /[*?[]/;

/** What matches, part by part of the path: Bun's own search sees files and folders only, no sockets. */
function expand(pattern: string): readonly string[] {
  const isAbsolute = pattern.startsWith("/");
  const parts = pattern.split("/").filter((part) => part !== "");
  return parts
    .reduce<readonly string[]>(
      (folders, part) => folders.flatMap((folder) => entriesOf(folder, part)),
      [isAbsolute ? "/" : ""],
    )
    .toSorted();
}

function entriesOf(folder: string, part: string): readonly string[] {
  if (!WILDCARD.test(part)) {
    return [join(folder, part)];
  }
  const glob = new Bun.Glob(part);
  return namesIn(folder)
    .filter((name) => glob.match(name) && (part.startsWith(".") || !name.startsWith(".")))
    .map((name) => join(folder, name));
}

/** None where the folder is none, or not ours to read. */
function namesIn(folder: string): readonly string[] {
  try {
    return readdirSync(folder === "" ? "." : folder);
  } catch (error) {
    if (!(error instanceof Error && "code" in error)) {
      throw error;
    }
    return [];
  }
}

function exists(path: string): boolean {
  return statOf(path) !== undefined;
}

function isSocket(path: string): boolean {
  return statOf(path)?.isSocket() === true;
}

function statOf(path: string): Stats | undefined {
  try {
    return statSync(path);
  } catch (error) {
    if (!(error instanceof Error && "code" in error)) {
      throw error;
    }
    return undefined;
  }
}
