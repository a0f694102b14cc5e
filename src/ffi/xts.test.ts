import { afterAll, describe, expect, test } from "bun:test";
import { Arena } from "./arena.ts";
import {
  decryptXts,
  decryptXtsTweak,
  encryptXts,
  encryptXtsTweak,
  expandXts,
  loadPortableXts,
  probeXts,
  selfTestXts,
  wipeXts,
  XTS_PROVIDER_NUMBERS,
  xtsContextBytes,
} from "./xts.ts";

const EINVAL = -22;
const EBADF = -9;

/** Made with other implementations: key 00 01 .. 3f, plaintext byte i = (7 i + 3) mod 256. */
const GOLDEN_SHA256 = [
  "62b8a37404785cfa3378b9e2dc28fc87a140227615b3391daba4dc6409459bd2",
  "d6df7488b6c6b7b918263b529e6492cf63937034901cc73154e5cac34a295200",
  "1cb27c53f3c853649169601361f641b003c7333f84602060a215f524cef99ef8",
];
const GOLDEN_FAR_SECTOR = 0x0123456789abcdefn;
const GOLDEN_FAR_SHA256 = "c745bbc2eb1c7e8e248baa053341e1b14c9010b1fd2eeae3bb1499e3a0fd8059";
const KEY = Uint8Array.from({ length: 64 }, (_, i) => i);

loadPortableXts();
const available = Object.entries(XTS_PROVIDER_NUMBERS).filter(
  ([, number]) => probeXts(number) === 0,
);
const arena = new Arena(65_536);
afterAll(() => arena[Symbol.dispose]());

describe.each(available)("%s", (_, provider) => {
  const context = arena.bytes(xtsContextBytes());
  const source = arena.bytes(4 * 512);
  const target = arena.bytes(4 * 512);

  test("gives its known answers", () => {
    expect(selfTestXts(provider)).toBe(0);
  });

  test("golden vectors, several sectors in one call, apart", () => {
    fillWithPattern(source.view);
    expect(expandXts(context.address, KEY, provider)).toBe(0);
    expect(encryptXts(context.address, 0, 3, source.address, target.address)).toBe(0);
    expect([0, 1, 2].map((i) => hashOf(target.view, i))).toEqual(GOLDEN_SHA256);
    expect(decryptXts(context.address, 0, 3, target.address, target.address)).toBe(0);
    expect(target.view.subarray(0, 1536)).toEqual(source.view.subarray(0, 1536));
  });

  test("golden vector beyond 2^53 by its whole tweak, in place", () => {
    const tweak = arena.bytes(16);
    new DataView(tweak.view.buffer, tweak.view.byteOffset).setBigUint64(8, GOLDEN_FAR_SECTOR, true);
    fillWithPattern(target.view);
    expandXts(context.address, KEY, provider);
    encryptXtsTweak(context.address, tweak.address, 1, target.address, target.address);
    expect(hashOf(target.view, 0)).toBe(GOLDEN_FAR_SHA256);
    decryptXtsTweak(context.address, tweak.address, 1, target.address, target.address);
    fillWithPattern(source.view);
    expect(target.view).toEqual(source.view);
  });

  test("golden vectors of sector 80 and of sector 2^60, where maps of archives begin", () => {
    expandXts(context.address, new Uint8Array(64).fill(0x11).fill(0x22, 32), provider);
    source.view.fill(0xaa);
    encryptXts(context.address, 80, 1, source.address, target.address);
    expect(target.view.subarray(0, 32).toHex()).toBe(
      "96d3bd9ff4ae0deda68e700fd9a9f119f514e13532d7417dead5f3005e1ba566",
    );
    source.view.fill(0);
    const tweak = arena.words(4);
    tweak.view.set([0, 0, 0, 2 ** 28]);
    encryptXtsTweak(context.address, tweak.address, 1, source.address, target.address);
    expect(target.view.subarray(0, 32).toHex()).toBe(
      "f0b445736653173b830a8a36bb3955c99391a654837855cd39b65378b17796ff",
    );
  });

  test("the last sector that a number holds exactly differs from the one before", () => {
    fillWithPattern(source.view);
    expandXts(context.address, KEY, provider);
    const last = Number.MAX_SAFE_INTEGER;
    encryptXts(context.address, last - 1, 2, source.address, target.address);
    const [before, after] = [hashOf(target.view, 0), hashOf(target.view, 1)];
    encryptXts(context.address, last, 1, source.address, target.address);
    expect(hashOf(target.view, 0)).toBe(after);
    expect(before).not.toBe(after);
  });

  test("two equal key halves are accepted", () => {
    expect(expandXts(context.address, new Uint8Array(64).fill(0x42), provider)).toBe(0);
    source.view.fill(0);
    expect(encryptXts(context.address, 0, 1, source.address, target.address)).toBe(0);
    expect(Buffer.from(target.view.subarray(0, 32)).toString("hex")).toBe(
      "9d80912fe4b51f95c2cd999affca7661c432033d01ac41af8d8069b50ccac16c",
    );
  });

  test("source and target that overlap in part are refused", () => {
    expandXts(context.address, KEY, provider);
    expect(encryptXts(context.address, 0, 2, source.address, source.address + 1)).toBe(EINVAL);
    expect(decryptXts(context.address, 0, 2, source.address + 512, source.address)).toBe(EINVAL);
  });

  test("a sector number that is negative, beyond 2^53 or none is refused", () => {
    expandXts(context.address, KEY, provider);
    for (const sector of [-1, 2 ** 53, Number.NaN, Number.POSITIVE_INFINITY]) {
      expect(encryptXts(context.address, sector, 1, source.address, target.address)).toBe(EINVAL);
      expect(decryptXts(context.address, sector, 1, source.address, target.address)).toBe(EINVAL);
    }
  });

  test("wiping leaves zeros only, and a wiped context is refused", () => {
    expandXts(context.address, KEY, provider);
    expect(context.view.some((byte) => byte !== 0)).toBe(true);
    wipeXts(context.address);
    expect(context.view.every((byte) => byte === 0)).toBe(true);
    expect(encryptXts(context.address, 0, 1, source.address, target.address)).toBe(EBADF);
  });
});

test("a provider that does not exist and a context off its alignment are refused", () => {
  expect(expandXts(arena.address, KEY, 99)).toBe(EINVAL);
  expect(expandXts(arena.address + 8, KEY, XTS_PROVIDER_NUMBERS.portable)).toBe(EINVAL);
});

function fillWithPattern(view: Uint8Array): void {
  view.forEach((_, i) => {
    view[i] = 7 * i + 3;
  });
}

function hashOf(view: Uint8Array, sector: number): string {
  const bytes = view.subarray(sector * 512, (sector + 1) * 512);
  return new Bun.CryptoHasher("sha256").update(bytes).digest("hex");
}
