import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import {
  closeSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { XtsCipher } from "../disk/cipher.ts";
import { errorText } from "../errors.ts";
import { lockFile } from "../ffi/file.ts";
import { convertXtsFile, type XtsFileOptions, type XtsProgress } from "./xts-file.ts";

const SECTOR = 512;
/** Three pieces of a megabyte and a rest. */
const SECTORS = 3 * 2048 + 5;
const KEY = Uint8Array.from({ length: 64 }, (_, i) => i);
const plaintext = Buffer.from(Uint8Array.from({ length: SECTORS * SECTOR }, (_, i) => 7 * i + 3));
/** Of sector 2 enciphered, made with other implementations. */
const SECTOR_2_SHA256 = "1cb27c53f3c853649169601361f641b003c7333f84602060a215f524cef99ef8";

const root = mkdtempSync(join(tmpdir(), "ubiblk-xts-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));
let folder = root;
beforeEach(() => {
  folder = mkdtempSync(join(root, "case-"));
  writeFileSync(file("plain"), plaintext);
});

test("encode, then decode, gives the input back; each sector has its own number", async () => {
  await convert({ action: "encode", inputPath: file("plain"), outputPath: file("cipher") });
  const ciphertext = readFileSync(file("cipher"));
  expect(ciphertext.length).toBe(plaintext.length);
  expect(sha256(ciphertext.subarray(2 * SECTOR, 3 * SECTOR))).toBe(SECTOR_2_SHA256);
  await convert({ action: "decode", inputPath: file("cipher"), outputPath: file("again") });
  expect(readFileSync(file("again")).equals(plaintext)).toBe(true);
});

describe("a run of sectors", () => {
  const run = { startSector: 2, sectorCount: 3 };

  test("decode writes it from the beginning of the output", async () => {
    await convert({ action: "encode", inputPath: file("plain"), outputPath: file("cipher") });
    const paths = { inputPath: file("cipher"), outputPath: file("part") };
    await convert({ action: "decode", ...paths, ...run });
    const expected = plaintext.subarray(2 * SECTOR, 5 * SECTOR);
    expect(readFileSync(file("part")).equals(expected)).toBe(true);
  });

  test("encode writes it at its own place, behind a hole", async () => {
    const paths = { inputPath: file("plain"), outputPath: file("part") };
    await convert({ action: "encode", ...paths, ...run });
    const part = readFileSync(file("part"));
    expect(part.length).toBe(5 * SECTOR);
    expect(part.subarray(0, 2 * SECTOR).every((byte) => byte === 0)).toBe(true);
    expect(sha256(part.subarray(2 * SECTOR, 3 * SECTOR))).toBe(SECTOR_2_SHA256);
  });

  test("an output offset puts it elsewhere, under the same sector numbers", async () => {
    const paths = { inputPath: file("plain"), outputPath: file("part") };
    await convert({ action: "encode", ...paths, ...run, outputSector: 1 });
    const part = readFileSync(file("part"));
    expect(part.length).toBe(4 * SECTOR);
    expect(sha256(part.subarray(SECTOR, 2 * SECTOR))).toBe(SECTOR_2_SHA256);
  });

  test("a length of 0 gives an empty output", async () => {
    const paths = { inputPath: file("plain"), outputPath: file("empty") };
    await convert({ action: "encode", ...paths, startSector: 2, sectorCount: 0 });
    expect(readFileSync(file("empty")).length).toBe(0);
  });

  test("a start or length beyond the input is refused and nothing is written", async () => {
    const paths = { inputPath: file("plain"), outputPath: file("out") };
    expect(await failureOf({ ...paths, startSector: SECTORS })).toContain("beyond them");
    const tooLong = { startSector: 10, sectorCount: SECTORS - 9 };
    expect(await failureOf({ ...paths, ...tooLong })).toContain("give a smaller length");
    expect(readdirSync(folder)).toEqual(["plain"]);
  });
});

test("an empty input and one of broken size are refused", async () => {
  writeFileSync(file("empty"), "");
  writeFileSync(file("broken"), Buffer.alloc(700));
  const outputPath = file("out");
  expect(await failureOf({ inputPath: file("empty"), outputPath })).toContain("0 sectors");
  expect(await failureOf({ inputPath: file("broken"), outputPath })).toContain("not a multiple");
  expect(await failureOf({ inputPath: folder, outputPath })).toContain("neither a file nor");
});

test("input and output the same file, by name, link or symbolic link, is refused", async () => {
  symlinkSync(file("plain"), file("symbolic"));
  linkSync(file("plain"), file("hard"));
  for (const outputPath of [file("plain"), file("symbolic"), file("hard")]) {
    expect(await failureOf({ inputPath: file("plain"), outputPath })).toContain("same file");
  }
  expect(readFileSync(file("plain")).equals(plaintext)).toBe(true);
});

test("the output is for its owner only, and an earlier one is replaced behind its link", async () => {
  mkdirSync(file("other"));
  writeFileSync(file("other/target"), "earlier", { mode: 0o644 });
  symlinkSync(file("other/target"), file("link"));
  await convert({ action: "encode", inputPath: file("plain"), outputPath: file("link") });
  expect(statSync(file("link")).size).toBe(plaintext.length);
  expect(statSync(file("other/target")).mode & 0o777).toBe(0o600);
  expect(readdirSync(file("other"))).toEqual(["target"]);
});

test("an interruption leaves an earlier output as it was, and nothing else", async () => {
  writeFileSync(file("out"), "earlier");
  const controller = new AbortController();
  const failure = await failureOf({
    inputPath: file("plain"),
    outputPath: file("out"),
    signal: controller.signal,
    onProgress: () => controller.abort(new Error("interrupted")),
  });
  expect(failure).toContain("interrupted");
  expect(readFileSync(file("out"), "utf8")).toBe("earlier");
  expect(readdirSync(folder).sort()).toEqual(["out", "plain"]);
});

test("an output that another program has locked is not replaced", async () => {
  writeFileSync(file("out"), "a running disk");
  const fd = openSync(file("out"), "r+");
  expect(lockFile(fd, "exclusive")).toBe(0);
  const failure = await failureOf({ inputPath: file("plain"), outputPath: file("out") });
  closeSync(fd);
  expect(failure).toContain("in use");
  expect(readFileSync(file("out"), "utf8")).toBe("a running disk");
});

test("an output that is a folder, a device of characters or out of reach is refused", async () => {
  const inputPath = file("plain");
  expect(await failureOf({ inputPath, outputPath: folder })).toContain("neither a file nor");
  expect(await failureOf({ inputPath, outputPath: "/dev/null" })).toContain("neither a file nor");
  expect(await failureOf({ inputPath, outputPath: file("no/such") })).toContain("cannot write");
});

test("the key is asked for only after everything else was found right", async () => {
  let isAsked = false;
  const options = optionsOf({ inputPath: file("absent"), outputPath: file("out") });
  const conversion = convertXtsFile(async () => {
    isAsked = true;
    return XtsCipher.create(KEY);
  }, options);
  await expect(conversion).rejects.toThrow("cannot open");
  expect(isAsked).toBe(false);
});

test("progress grows to the whole, a megabyte at a time", async () => {
  const shown: XtsProgress[] = [];
  await convert({
    inputPath: file("plain"),
    outputPath: file("out"),
    onProgress: (progress) => shown.push(progress),
  });
  const mib = 2 ** 20;
  const doneBytes = [mib, 2 * mib, 3 * mib, plaintext.length];
  expect(shown.map((progress) => progress.doneBytes)).toEqual(doneBytes);
});

type Options = Partial<XtsFileOptions> & Pick<XtsFileOptions, "inputPath" | "outputPath">;

function optionsOf(options: Options): XtsFileOptions {
  const whole = { startSector: 0, sectorCount: undefined, outputSector: undefined };
  return { action: "decode", ...whole, ...options };
}

function convert(options: Options): Promise<void> {
  return convertXtsFile(async () => XtsCipher.create(KEY), optionsOf(options));
}

async function failureOf(options: Options): Promise<string> {
  try {
    await convert(options);
    return "";
  } catch (error) {
    return errorText(error);
  }
}

function file(name: string): string {
  return join(folder, name);
}

function sha256(bytes: Uint8Array): string {
  return new Bun.CryptoHasher("sha256").update(bytes).digest("hex");
}
