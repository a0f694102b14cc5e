import { afterAll, describe, expect, test } from "bun:test";
import { UbiError } from "../errors.ts";
import { Arena } from "../ffi/arena.ts";
import { nativeInheritance } from "../ffi/library.ts";
import { viewOf } from "../ffi/memory.ts";
import { xtsContextBytes } from "../ffi/xts.ts";
import { XtsCipher } from "./cipher.ts";
import { chooseProvider, parseProvider, XTS_PROVIDERS } from "./cipher-provider.ts";

const EBADF = -9;
const KEY = Uint8Array.from({ length: 64 }, (_, i) => i);
const arena = new Arena(8192);
const source = arena.bytes(1024);
const target = arena.bytes(1024);
source.view.forEach((_, i) => {
  source.view[i] = 7 * i + 3;
});
afterAll(() => arena[Symbol.dispose]());

test("a cipher enciphers apart and deciphers in place", () => {
  using cipher = XtsCipher.create(KEY);
  expect(cipher.encrypt(1, 2, source.address, target.address)).toBe(0);
  expect(firstBytes()).toBe("fc95c3b5ef908033a7a3f1ee9c5e6456");
  expect(cipher.decrypt(1, 2, target.address, target.address)).toBe(0);
  expect(target.view).toEqual(source.view);
});

describe.each(["vaes512", "vaes256", "aesni", "portable"] as const)("%s", (provider) => {
  test("a preferred provider is used where it works, and gives the same bytes", () => {
    const expected = chooseProvider(provider);
    using cipher = XtsCipher.create(KEY, { provider });
    cipher.encrypt(0, 1, source.address, target.address);
    expect(cipher.provider).toBe(expected);
    expect(firstBytes()).toBe("3f1f187c64e5cc3f3ee91069219b1238");
  });
});

test("an attached cipher uses the expanded keys of another and leaves them alone at its end", () => {
  using owner = XtsCipher.create(KEY);
  {
    using attached = XtsCipher.attach(owner.contextAddress);
    expect(attached.provider).toBe("attached");
    expect(attached.encrypt(2, 1, source.address, target.address)).toBe(0);
  }
  expect(firstBytes()).toBe("c593c1d5c07fcf80e9e6827dff9eed4e");
  expect(owner.decrypt(2, 1, target.address, target.address)).toBe(0);
});

test("a worker thread uses the expanded keys by their address", async () => {
  using cipher = XtsCipher.create(KEY);
  cipher.encrypt(9, 2, source.address, target.address);
  const expected = target.view.slice();
  target.view.fill(0);
  expect(await runInWorker(cipher.contextAddress)).toBe(0);
  expect(target.view).toEqual(expected);
});

test("disposing wipes the keys and what comes later is refused", () => {
  const cipher = XtsCipher.create(KEY);
  const memory = new Uint8Array(viewOf(cipher.contextAddress, xtsContextBytes()));
  // Both halves of an AES-256 schedule begin with the key itself.
  expect(Buffer.from(memory).includes(KEY.subarray(0, 32))).toBe(true);
  expect(Buffer.from(memory).includes(KEY.subarray(32))).toBe(true);
  cipher[Symbol.dispose]();
  cipher[Symbol.dispose]();
  expect(memory.every((byte) => byte === 0)).toBe(true);
  expect(cipher.encrypt(0, 1, source.address, target.address)).toBe(EBADF);
});

test("the caller's key is left as it was", () => {
  const key = KEY.slice();
  using cipher = XtsCipher.create(key);
  expect(cipher.contextAddress % 64).toBe(0);
  expect(key).toEqual(KEY);
});

test("a key of another size is a mistake of the caller", () => {
  expect(() => XtsCipher.create(new Uint8Array(32))).toThrow("64 bytes");
});

test("an unknown provider is refused with the known ones", () => {
  expect(parseProvider("aesni", "--provider")).toBe("aesni");
  expect(() => parseProvider("AESNI", "--provider")).toThrow(UbiError);
  expect(() => parseProvider("", "--provider")).toThrow(XTS_PROVIDERS.join(", "));
});

function firstBytes(): string {
  return Buffer.from(target.view.subarray(0, 16)).toString("hex");
}

/** Resolves with the worker's result. */
function runInWorker(contextAddress: number): Promise<unknown> {
  const worker = new Worker(new URL("../../tests/support/cipher-worker.ts", import.meta.url).href);
  worker.postMessage({
    ...nativeInheritance(),
    contextAddress,
    source: source.address,
    target: target.address,
  });
  return new Promise((resolve, reject) => {
    worker.addEventListener("message", (event) => resolve(event.data));
    worker.addEventListener("error", reject);
  });
}
