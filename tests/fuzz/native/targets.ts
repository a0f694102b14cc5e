/** The fuzz targets of the native library: what each is built of, with gcc for replays and with clang for libFuzzer. */
import { mkdirSync } from "node:fs";
import { join, resolve } from "node:path";
import { outputOf } from "../../../scripts/command.ts";

const ROOT = resolve(import.meta.dir, "..", "..", "..");
const FLAGS = ["-std=gnu17", "-Wall", "-Wextra", "-Werror", "-O1", "-g"];
const SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"];
const SSL = ["ssl/tls.c", "ssl/table.c", "ssl/xts_portable.c"];
const SSL_LIBRARIES = ["-l:libssl.a", "-l:libcrypto.a"];
const KERNELS = ["xts_vaes256.c", "xts_vaes512.c"];

export interface NativeTarget {
  readonly name: string;
  /** Files of ffi/. */
  readonly sources: readonly string[];
  /** Files that gcc compiles in any case: what they ask of the processor is beyond older versions of clang. */
  readonly kernels?: readonly string[];
  readonly libraries?: readonly string[];
  /** Runs with changed inputs in `npm test`, about a second of them. */
  readonly runs: number;
}

export const NATIVE_TARGETS: readonly NativeTarget[] = [
  { name: "memory", sources: ["memory.c"], runs: 500 },
  { name: "socket", sources: ["socket.c", "event.c"], runs: 4000 },
  { name: "files", sources: ["file.c", "folder.c"], runs: 1000 },
  {
    name: "xts",
    sources: ["xts.c", "xts_aesni.c", "xts_isal.c", "xts_portable.c", ...SSL],
    kernels: KERNELS,
    libraries: SSL_LIBRARIES,
    runs: 150,
  },
  {
    name: "tls",
    sources: [...SSL, "socket.c", "stream.c"],
    libraries: SSL_LIBRARIES,
    runs: 400,
  },
];

/** Where the inputs are that a target is always run with, one a line. */
export function corpusOf(target: NativeTarget): string {
  return join(import.meta.dir, "corpus", `${target.name}.txt`);
}

/** A program that runs `target` without a fuzzer, in `folder`. */
export async function buildReplay(target: NativeTarget, folder: string): Promise<string> {
  const program = join(folder, `replay-${target.name}`);
  const own = [targetFile(target), join(import.meta.dir, "replay.c")];
  const sources = [...own, ...nativeFiles([...target.sources, ...(target.kernels ?? [])])];
  await compile("gcc", ["-o", program, ...sources, ...(target.libraries ?? [])]);
  return program;
}

/** The same for libFuzzer. `compiler` is a clang. */
export async function buildFuzzer(
  target: NativeTarget,
  folder: string,
  compiler: string,
): Promise<string> {
  mkdirSync(folder, { recursive: true });
  const program = join(folder, `fuzz-${target.name}`);
  const objects: string[] = [];
  for (const kernel of target.kernels ?? []) {
    const object = join(folder, `${kernel}.o`);
    await compile("gcc", ["-c", "-o", object, ...nativeFiles([kernel])]);
    objects.push(object);
  }
  const sources = [targetFile(target), ...nativeFiles(target.sources), ...objects];
  const libraries = target.libraries ?? [];
  await compile(compiler, ["-fsanitize=fuzzer", "-o", program, ...sources, ...libraries]);
  return program;
}

// --- internal ---

function targetFile({ name }: NativeTarget): string {
  return join(import.meta.dir, `${name}_target.c`);
}

function nativeFiles(files: readonly string[]): readonly string[] {
  return files.map((file) => join(ROOT, "ffi", file));
}

function compile(compiler: string, words: readonly string[]): Promise<string> {
  return outputOf([compiler, ...FLAGS, ...SANITIZERS, ...words]);
}
