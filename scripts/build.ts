/**
 * Builds dist/ubiblk: the native libraries by make, then one executable by bun, then checks it.
 *
 *   ffi/*.c --make--> build/*.so --embedded--> dist/ubiblk <-- src/main.ts and what it imports
 *
 * Flags: the executable reads neither `.env` nor `bunfig.toml` of the directory it is started in (the
 * second can name code to run first), and refuses code made from strings, which closes `BUN_OPTIONS`
 * and workers loaded from the current directory. Bytecode keeps the start short. Splitting makes a module
 * of each dynamic import: a command or worker loads (and pays memory for) only what it runs.
 */
import { mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from "node:fs";
import { join, resolve } from "node:path";
import packageJson from "../package.json" with { type: "json" };
import { outputOf } from "./command.ts";
import { foreignLibraries } from "./elf.ts";

const ROOT = resolve(import.meta.dir, "..");
export const EXECUTABLE = join(ROOT, "dist", "ubiblk");
const BUILD_FOLDER = join(ROOT, "build");

const COMPILE_FLAGS = [
  "--compile",
  "--format=esm",
  "--minify",
  "--bytecode",
  "--splitting",
  "--no-compile-autoload-dotenv",
  "--no-compile-autoload-bunfig",
  "--compile-exec-argv=--disallow-code-generation-from-strings=strict",
] as const;

/** Makes the native libraries only: enough to run the sources and their tests. */
export async function buildLibraries(): Promise<void> {
  await outputOf(["make", "--silent", "-C", join(ROOT, "ffi")], { timeoutMs: 300_000 });
}

/** Makes and checks the executable. @throws Error with the failing tool's output */
export async function build(): Promise<void> {
  await buildLibraries();
  await compile({ entry: join(ROOT, "src", "main.ts"), target: EXECUTABLE });
  await check();
}

/** Compiles `entry` into the executable `target`, which appears whole or not at all. */
export async function compile(options: { entry: string; target: string }): Promise<void> {
  mkdirSync(BUILD_FOLDER, { recursive: true });
  const folder = mkdtempSync(join(BUILD_FOLDER, "compile-"));
  try {
    const path = join(folder, "ubiblk");
    const command = [process.execPath, "build", ...COMPILE_FLAGS, options.entry, "--outfile", path];
    await outputOf(command, { cwd: ROOT });
    mkdirSync(resolve(options.target, ".."), { recursive: true });
    renameSync(path, options.target);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

// --- internal ---

async function check(): Promise<void> {
  const libraries = readdirSync(BUILD_FOLDER).filter((name) => /^libubi.*\.so$/.test(name));
  for (const path of [EXECUTABLE, ...libraries.map((name) => join(BUILD_FOLDER, name))]) {
    const foreign = await foreignLibraries(path);
    if (foreign.length > 0) {
      throw new Error(`${path} needs libraries that are not glibc's: ${foreign.join(", ")}`);
    }
  }
  const version = (await outputOf([EXECUTABLE, "--version"], { timeoutMs: 20_000 })).trim();
  if (!version.split(/\s+/).includes(packageJson.version)) {
    throw new Error(`${EXECUTABLE} says version "${version}", expected ${packageJson.version}`);
  }
}

if (import.meta.main) {
  const startMs = performance.now();
  try {
    await build();
    const seconds = ((performance.now() - startMs) / 1000).toFixed(1);
    console.log(`build: dist/ubiblk ${packageJson.version} in ${seconds} s`);
  } catch (error) {
    console.error(`build: ${error instanceof Error ? error.message : error}`);
    process.exitCode = 1;
  }
}
