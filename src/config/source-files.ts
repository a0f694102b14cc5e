/**
 * Reads a config document from its root file and the files it includes, and merges them into one
 * table that remembers which file and line each key came from.
 */
import type { Stats } from "node:fs";
import { dirname } from "node:path";
import { errorText, UbiError, UbiErrors } from "../errors.ts";
import { log } from "../log.ts";
import { readBounded, systemErrorCode } from "./bounded-read.ts";
import { ConfigError } from "./config-error.ts";
import { permissionProblem } from "./file-permissions.ts";
import type { KeyOrigin } from "./findings.ts";
import { dottedKey, findKeyLines, type KeyLines, type KeyPath, keyId } from "./key-positions.ts";
import { INCLUDES_MAX } from "./schema.ts";
import { emptyTable, isTable, parseToml, type TomlTable, type TomlValue } from "./toml.ts";

export interface SourceDocument {
  /** The merged table, without `include`. */
  readonly table: TomlTable;
  /** The directory that relative paths of the document start from. */
  readonly directory: string;
  /** The root file and those it includes. */
  readonly files: readonly string[];
  readonly warnings: readonly string[];
  readonly originOf: (path: KeyPath) => KeyOrigin;
  /** Whether a key stands in one of the files. */
  readonly isWritten: (path: KeyPath) => boolean;
}

/**
 * Reads `path` and its includes.
 *
 * @param signal ends the wait for the writer of a pipe
 * @throws UbiErrors E_CONFIG_READ, E_CONFIG_SYNTAX or E_CONFIG_INCLUDE, all that were found; the signal's reason
 */
export async function readSourceDocument(
  path: string,
  signal?: AbortSignal,
): Promise<SourceDocument> {
  const reader = new SourceReader(path, signal);
  await reader.readAll();
  return reader.document();
}

/**
 * Joins lexically, as written: `..` and symbolic links stay for the kernel to resolve. An empty
 * `directory` is the working directory.
 */
export function joinPath(directory: string, path: string): string {
  if (path.startsWith("/") || directory === "") {
    return path;
  }
  return directory.endsWith("/") ? `${directory}${path}` : `${directory}/${path}`;
}

// --- internal ---

const FILE_BYTES_MAX = 1 << 20;
const PIPE_TIMEOUT_MS = 60_000;

interface SourceFile {
  readonly file: string;
  readonly table: TomlTable;
  readonly lines: KeyLines;
}

interface Include {
  readonly path: string;
  readonly isOptional: boolean;
}

class SourceReader {
  readonly #path: string;
  readonly #signal: AbortSignal | undefined;
  readonly #directory: string;
  readonly #files: SourceFile[] = [];
  readonly #errors: UbiError[] = [];
  readonly #warnings: string[] = [];

  constructor(path: string, signal: AbortSignal | undefined) {
    this.#path = path;
    this.#signal = signal;
    this.#directory = path.includes("/") ? dirname(path) : "";
  }

  async readAll(): Promise<void> {
    const root = await this.#read(this.#path, false);
    for (const include of root === undefined ? [] : this.#takeIncludes(root)) {
      const file = await this.#read(joinPath(this.#directory, include.path), include.isOptional);
      if (file !== undefined) {
        this.#refuseNesting(file);
      }
    }
  }

  document(): SourceDocument {
    const table = emptyTable();
    for (const file of this.#files) {
      this.#merge(table, file.table, [], file);
    }
    if (this.#errors.length > 0) {
      throw new UbiErrors(this.#errors);
    }
    return {
      table,
      directory: this.#directory,
      files: this.#files.map(({ file }) => file),
      warnings: this.#warnings,
      originOf: (path) => this.#originOf(path),
      isWritten: (path) => this.#files.some((file) => valueAt(file.table, path) !== undefined),
    };
  }

  async #read(file: string, isOptional: boolean): Promise<SourceFile | undefined> {
    try {
      const text = await this.#readText(file);
      const source = { file, table: parseToml(text, file), lines: findKeyLines(text) };
      this.#files.push(source);
      return source;
    } catch (error) {
      this.#signal?.throwIfAborted();
      if (isOptional && systemErrorCode(error) === "ENOENT") {
        log.info("optional include is absent", { path: file });
      } else if (error instanceof UbiError) {
        this.#errors.push(error);
      } else if (systemErrorCode(error) === undefined) {
        throw error;
      } else {
        this.#fail(`cannot read config ${file}: ${errorText(error)}`, error);
      }
      return undefined;
    }
  }

  async #readText(file: string): Promise<string> {
    const bytes = await readBounded(file, {
      bytesMax: FILE_BYTES_MAX,
      timeoutMs: PIPE_TIMEOUT_MS,
      what: "the config",
      inspect: (stats) => this.#checkPermissions(file, stats),
      signal: this.#signal,
    });
    try {
      if (bytes.length > FILE_BYTES_MAX) {
        const what = `larger than ${FILE_BYTES_MAX} bytes`;
        throw new ConfigError("E_CONFIG_READ", { file }, what);
      }
      return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    } catch (error) {
      if (error instanceof TypeError) {
        throw new ConfigError("E_CONFIG_READ", { file }, "not valid UTF-8");
      }
      throw error;
    } finally {
      // The text may hold inline secrets. Strings cannot be wiped; this copy can.
      bytes.fill(0);
    }
  }

  #checkPermissions(file: string, stats: Stats): void {
    const problem = permissionProblem(file, stats);
    if (problem?.isFatal === true) {
      throw new UbiError("E_CONFIG_READ", problem.message);
    }
    if (problem !== undefined) {
      this.#warnings.push(problem.message);
    }
  }

  #takeIncludes(root: SourceFile): readonly Include[] {
    const value = root.table.include;
    delete root.table.include;
    if (value === undefined) {
      return [];
    }
    const refuse = (what: string) => this.#refuse(root, ["include"], what);
    if (!Array.isArray(value) || value.length > INCLUDES_MAX) {
      refuse(`an array of at most ${INCLUDES_MAX} file names is expected`);
      return [];
    }
    const includes: Include[] = [];
    for (const entry of value) {
      const include = parseInclude(entry);
      if (typeof include === "string") {
        refuse(include);
      } else {
        includes.push(include);
      }
    }
    // Paths are all checked before any is opened.
    return includes.length === value.length ? includes : [];
  }

  #refuseNesting(file: SourceFile): void {
    if (file.table.include !== undefined) {
      this.#refuse(file, ["include"], "an included file cannot include others (no nesting)");
      delete file.table.include;
    }
  }

  #merge(target: TomlTable, source: TomlTable, path: KeyPath, file: SourceFile): void {
    for (const [key, value] of Object.entries(source)) {
      const keyPath = [...path, key];
      const existing = target[key];
      if (existing === undefined) {
        target[key] = copyTables(value);
      } else if (isTable(existing) && isTable(value)) {
        this.#merge(existing, value, keyPath, file);
      } else {
        this.#refuseConflict(keyPath, file, isTable(existing) !== isTable(value));
      }
    }
  }

  #refuseConflict(path: KeyPath, file: SourceFile, isTypeMismatch: boolean): void {
    const first = this.#originOf(path);
    const where = first.line === undefined ? first.file : `${first.file}:${first.line}`;
    const what = isTypeMismatch
      ? `type mismatch: a table in one file and a value in the other, ${where}`
      : `duplicate: already given in ${where}`;
    this.#refuse(file, path, what);
  }

  #refuse(file: SourceFile, path: KeyPath, what: string): void {
    const place = { file: file.file, line: file.lines.get(keyId(path)), key: dottedKey(path) };
    this.#errors.push(new ConfigError("E_CONFIG_INCLUDE", place, what));
  }

  #originOf(path: KeyPath): KeyOrigin {
    for (let length = path.length; length > 0; length -= 1) {
      const id = keyId(path.slice(0, length));
      const fileIndex = this.#files.findIndex((file) => file.lines.has(id));
      const file = this.#files[fileIndex];
      if (file !== undefined) {
        return { file: file.file, fileIndex, line: file.lines.get(id) };
      }
    }
    return { file: this.#path, fileIndex: 0 };
  }

  #fail(message: string, cause: unknown): void {
    this.#errors.push(new UbiError("E_CONFIG_READ", message, { cause }));
  }
}

/** Returns what is wrong with an include as a text. */
function parseInclude(entry: TomlValue): Include | string {
  if (typeof entry !== "string") {
    return "every entry is a file name (a string)";
  }
  const isOptional = entry.endsWith("?");
  const path = isOptional ? entry.slice(0, -1) : entry;
  if (path.trim() === "") {
    return "an entry is empty";
  }
  if (path.startsWith("/")) {
    return `${JSON.stringify(path)} must be relative to the directory of this file`;
  }
  if (path.split("/").includes("..")) {
    return `${JSON.stringify(path)} must not contain ".."`;
  }
  return { path, isOptional };
}

function valueAt(table: TomlTable, path: KeyPath): TomlValue | undefined {
  let value: TomlValue | undefined = table;
  for (const key of path) {
    value = value !== undefined && isTable(value) ? value[key] : undefined;
  }
  return value;
}

function copyTables(value: TomlValue): TomlValue {
  if (!isTable(value)) {
    return value;
  }
  const copy = emptyTable();
  for (const [key, inner] of Object.entries(value)) {
    copy[key] = copyTables(inner);
  }
  return copy;
}
