/**
 * Every kernel of the cipher in C, as it is and under the sanitizers, against published vectors and
 * libcrypto; and how libisal_crypto is found, checked and passed over, with a stand-in built here, since no
 * distribution has a package of it.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { chmodSync, copyFileSync, existsSync, mkdtempSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { outputOf, runCommand } from "../../scripts/command.ts";
import { isInstalled, rounds, skipUnless } from "../support/requires.ts";

const ROOT = resolve(import.meta.dir, "..", "..");
const FFI = join(ROOT, "ffi");
const SONAME = "libisal_crypto.so.2";
/** Of sector 2 as tests/support/print-cipher.ts enciphers it; made with other implementations. */
const KNOWN_SHA256 = "1cb27c53f3c853649169601361f641b003c7333f84602060a215f524cef99ef8";

const folder = mkdtempSync(join(tmpdir(), "ubiblk-cipher-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const flags = (await Bun.file("/proc/cpuinfo").text()).split(/\s+/);
const fastest = ownProviders()[0] ?? "portable";
const skipWithoutAes = skipUnless("this CPU lacks AES-NI", flags.includes("aes"));
const systemIsal = ["/usr/lib", "/usr/local/lib", "/usr/lib/x86_64-linux-gnu", "/usr/lib64"]
  .map((path) => join(path, SONAME))
  .find((path) => existsSync(path));

beforeAll(async () => {
  await Promise.all([
    buildStandIn("isal.so"),
    buildStandIn("old-names.so", "-DOLD_NAMES"),
    buildStandIn("without-decrypt.so", "-DWITHOUT_DECRYPT"),
    buildStandIn("failing.so", "-DFAILING"),
    buildStandIn("exchanged.so", "-DEXCHANGED"),
  ]);
}, 120_000);

test("kernels: published vectors and 10,000 random cases each agree with libcrypto", async () => {
  const program = await buildKernelTest("kernels", ["-O2"]);
  const seed = String(rounds(1, Date.now()));
  const cases = String(rounds(10_000, 200_000));
  const output = await outputOf([program, seed, cases, join(folder, "isal.so")]);
  expect(testedProviders(output)).toEqual(availableProviders());
}, 300_000);

test("kernels: clean under the address and undefined-behaviour sanitizers", async () => {
  const program = await buildKernelTest("kernels-sanitized", [
    "-O1",
    "-g",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
  ]);
  const cases = String(rounds(1_000, 20_000));
  const output = await outputOf([program, "2", cases, join(folder, "isal.so")]);
  expect(testedProviders(output)).toEqual(availableProviders());
}, 300_000);

test("portable kernel: right without the CPU's AES instructions", async () => {
  const result = await printCipher({
    UBIBLK_XTS_PROVIDER: "portable",
    OPENSSL_ia32cap: "~0x200000200000000", // makes OpenSSL blind for AES-NI and PCLMULQDQ
  });
  expect(result).toEqual({ provider: "portable", sha256: KNOWN_SHA256, log: "" });
}, 60_000);

test("providers: without a choice the order is VAES-512, VAES-256, AES-NI, portable where isa-l is absent", async () => {
  const hidden = [
    "",
    "vaes512",
    "vaes512,vaes256",
    "vaes512,vaes256,aesni",
    "vaes512,vaes256,aesni,isal",
  ];
  const results = await Promise.all(
    hidden.map((UBIBLK_XTS_HIDE) => printCipher({ UBIBLK_XTS_HIDE })),
  );
  const expected = hidden.map((names) =>
    [...ownProviders(), ...(systemIsal === undefined ? [] : ["isal"]), "portable"].find(
      (provider) => !names.split(",").includes(provider),
    ),
  );
  expect(results.map((result): string | undefined => result.provider)).toEqual(expected);
  expect(new Set(results.map((result) => result.sha256))).toEqual(new Set([KNOWN_SHA256]));
}, 60_000);

test("providers: the second library loads in a process that cannot be dumped", async () => {
  const result = await printCipher({ UBIBLK_XTS_PROVIDER: "portable" }, ["--harden"]);
  expect(result).toEqual({ provider: "portable", sha256: KNOWN_SHA256, log: "" });
}, 60_000);

skipUnless("only root can become another user", process.getuid?.() === 0 && isInstalled("setpriv"))(
  "providers: the second library loads in such a process of an ordinary user",
  async () => {
    const program = await compilePrintCipher(); // where that user can reach it
    const user = ["setpriv", "--reuid=65534", "--clear-groups", program, "--harden"];
    const env = { PATH: process.env.PATH, UBIBLK_XTS_PROVIDER: "portable" };
    const printed = await runCommand(user, { cwd: "/", env, timeoutMs: 50_000 });
    expect(printed.stderr).toBe("");
    const { provider, sha256 } = JSON.parse(printed.stdout);
    expect({ provider, sha256 }).toEqual({ provider: "portable", sha256: KNOWN_SHA256 });
  },
  60_000,
);

test("providers: an unknown name in the environment is an error that lists the known ones", async () => {
  const { exitCode, stderr } = await runPrintCipher({ UBIBLK_XTS_PROVIDER: "rot13" });
  expect(exitCode).not.toBe(0);
  expect(stderr).toContain("use one of vaes512, vaes256, aesni, isal, portable");
}, 60_000);

skipWithoutAes(
  "isa-l: gets the tweak key first and the right schedules",
  async () => {
    const result = await printIsal("isal.so");
    expect(result).toEqual({ provider: "isal", sha256: KNOWN_SHA256, log: "" });
  },
  60_000,
);

skipWithoutAes(
  "isa-l: a library with only the old names works",
  async () => {
    const result = await printIsal("old-names.so");
    expect(result).toEqual({ provider: "isal", sha256: KNOWN_SHA256, log: "" });
  },
  60_000,
);

skipWithoutAes(
  "isa-l: without a needed function it is passed over as too old",
  async () => {
    expect(await printIsal("without-decrypt.so")).toEqual(
      passedOver("it is too old, functions are missing from it"),
    );
  },
  60_000,
);

skipWithoutAes(
  "isa-l: a failing return code fails the known answers",
  async () => {
    expect(await printIsal("failing.so")).toEqual(
      passedOver("it failed the test with known answers"),
    );
  },
  60_000,
);

skipWithoutAes(
  "isa-l: another argument order fails the known answers",
  async () => {
    expect(await printIsal("exchanged.so")).toEqual(
      passedOver("it failed the test with known answers"),
    );
  },
  60_000,
);

skipWithoutAes(
  "isa-l: a file that others may write is not loaded",
  async () => {
    const path = join(folder, "writable.so");
    copyFileSync(join(folder, "isal.so"), path);
    chmodSync(path, 0o775);
    const result = await printIsal("writable.so");
    expect(result.provider).toBe(fastest);
    expect(result.log).toContain("nobody else may write");
  },
  60_000,
);

skipWithoutAes(
  "isa-l: a relative path, an absent file and a text file are passed over",
  async () => {
    await Bun.write(join(folder, "text.so"), "not a library");
    const relative = await printCipher({
      UBIBLK_XTS_PROVIDER: "isal",
      UBIBLK_ISAL_PATH: "isal.so",
    });
    expect(relative).toEqual(passedOver("UBIBLK_ISAL_PATH is not an absolute path"));
    expect(await printIsal("absent.so")).toEqual(passedOver("libisal_crypto.so.2 is not found"));
    expect(await printIsal("text.so")).toEqual(passedOver("it is not a library that loads"));
  },
  60_000,
);

skipWithoutAes(
  "isa-l: found by its soname on the loader's path",
  async () => {
    const libraries = mkdtempSync(join(folder, "libraries-"));
    symlinkSync(join(folder, "isal.so"), join(libraries, SONAME));
    const result = await printCipher({ UBIBLK_XTS_PROVIDER: "isal", LD_LIBRARY_PATH: libraries });
    expect(result).toEqual({ provider: "isal", sha256: KNOWN_SHA256, log: "" });
  },
  60_000,
);

skipUnless("libisal_crypto.so.2 is installed", systemIsal === undefined)(
  "isa-l: never taken from the current directory, not even by an empty element of the loader's path",
  async () => {
    const current = mkdtempSync(join(folder, "current-"));
    copyFileSync(join(folder, "isal.so"), join(current, SONAME));
    const plain = await printCipher({ UBIBLK_XTS_PROVIDER: "isal" }, [], current);
    expect(plain).toEqual(passedOver("libisal_crypto.so.2 is not found"));
    const empty = { UBIBLK_XTS_PROVIDER: "isal", LD_LIBRARY_PATH: "/nowhere:" };
    const result = await printCipher(empty, [], current);
    expect(result.provider).toBe(fastest);
    expect(result.log).toContain("LD_LIBRARY_PATH is not absolute");
  },
  60_000,
);

skipUnless("libisal_crypto.so.2 is not installed", systemIsal !== undefined)(
  "isa-l: the system's own gives the same bytes",
  async () => {
    const result = await printCipher({ UBIBLK_XTS_PROVIDER: "isal" });
    expect(result).toEqual({ provider: "isal", sha256: KNOWN_SHA256, log: "" });
  },
  60_000,
);

// --- internal ---

interface Printed {
  readonly provider: string;
  readonly sha256: string;
  /** Log lines. */
  readonly log: string;
}

function ownProviders(): string[] {
  const wide = ["aes", "vaes", "vpclmulqdq", "pclmulqdq"];
  const needs = {
    vaes512: [...wide, "avx512f", "avx512bw", "avx512dq", "avx512vl"],
    vaes256: [...wide, "avx2"],
    aesni: ["aes"],
  };
  return Object.entries(needs).flatMap(([provider, needed]) =>
    needed.every((flag) => flags.includes(flag)) ? [provider] : [],
  );
}

/** Numbers as in enum ubi_xts_provider, for this CPU with a libisal_crypto. */
function availableProviders(): string[] {
  const own = ownProviders();
  const available = [...own, ...(own.includes("aesni") ? ["isal"] : []), "portable"];
  const numbers = ["vaes512", "vaes256", "aesni", "isal", "portable"];
  return available.map((provider) => String(numbers.indexOf(provider) + 1));
}

function testedProviders(output: string): string[] {
  return [...output.matchAll(/^provider (\d): \d+ cases$/gm)].map((match) => match[1] ?? "");
}

function passedOver(reason: string): Printed {
  const log = `[WARN ] cipher provider isal cannot be used: ${reason}; using ${fastest}\n`;
  return { provider: fastest, sha256: KNOWN_SHA256, log };
}

function printIsal(library: string): Promise<Printed> {
  const path = join(folder, library);
  return printCipher({ UBIBLK_XTS_PROVIDER: "isal", UBIBLK_ISAL_PATH: path });
}

async function printCipher(
  environment: Readonly<Record<string, string>>,
  flagsOfScript: readonly string[] = [],
  cwd = folder,
): Promise<Printed> {
  const { stdout, stderr, exitCode } = await runPrintCipher(environment, flagsOfScript, cwd);
  if (exitCode !== 0) {
    throw new Error(`print-cipher failed: ${stderr}`);
  }
  const { provider, result, sha256 } = JSON.parse(stdout);
  expect(result).toBe(0);
  return { provider, sha256, log: stderr };
}

/** An executable of the script in the test's folder, which is opened to everybody. */
async function compilePrintCipher(): Promise<string> {
  const program = join(folder, "print-cipher");
  const script = fileURLToPath(import.meta.resolve("../support/print-cipher.ts"));
  await outputOf([process.execPath, "build", "--compile", script, "--outfile", program]);
  chmodSync(folder, 0o755);
  chmodSync(program, 0o755);
  return program;
}

function runPrintCipher(
  environment: Readonly<Record<string, string>>,
  flagsOfScript: readonly string[] = [],
  cwd = folder,
) {
  const script = fileURLToPath(import.meta.resolve("../support/print-cipher.ts"));
  return runCommand([process.execPath, script, ...flagsOfScript], {
    cwd,
    env: { PATH: process.env.PATH, UBIBLK_LOG: "info", ...environment },
    timeoutMs: 50_000,
  });
}

async function buildStandIn(name: string, ...definitions: string[]): Promise<void> {
  const path = join(folder, name);
  const source = join(FFI, "tests", "isal_stand_in.c");
  const link = ["-Wl,--exclude-libs,ALL", "-Wl,-Bsymbolic", "-l:libcrypto.a"];
  const shape = ["-O1", "-shared", "-fPIC", "-fvisibility=hidden"];
  await outputOf(["gcc", ...WARNINGS, ...shape, ...definitions, source, ...link, "-o", path]);
  chmodSync(path, 0o755);
  chmodSync(folder, 0o755);
}

async function buildKernelTest(name: string, options: readonly string[]): Promise<string> {
  const path = join(folder, name);
  const kernels = [...new Bun.Glob("xts*.c").scanSync(FFI)].map((file) => join(FFI, file));
  const others = ["ssl/xts_portable.c", "tests/xts_test.c"].map((file) => join(FFI, file));
  await outputOf(["gcc", ...WARNINGS, ...options, ...kernels, ...others, "-lcrypto", "-o", path]);
  return path;
}

const WARNINGS = ["-std=gnu17", "-Wall", "-Wextra", "-Werror"];
