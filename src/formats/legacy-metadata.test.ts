import { expect, test } from "bun:test";
import { decodeLegacyMetadata, isLegacyMetadata } from "./legacy-metadata.ts";
import type { MetadataMedium } from "./metadata.ts";

const STRIPE_SECTORS = 2048;

test("flags of 0 become those of a stripe in the source, all others those of a written one", () => {
  const file = legacyFile(11, [0, 1, 2, 3, 0]);
  const metadata = decodeLegacyMetadata(mediumOf(file), 5 * STRIPE_SECTORS);
  expect(metadata).toEqual({
    stripeShift: 11,
    stripeCount: 5,
    flags: Uint8Array.of(4, 2, 2, 2, 4),
  });
});

test("the number of stripes is that of the disk, a short one included, and not that of the file", () => {
  const file = legacyFile(11, [0, 1, 2, 3, 0]);
  expect(decodeLegacyMetadata(mediumOf(file), 2 * STRIPE_SECTORS + 1).flags).toEqual(
    Uint8Array.of(4, 2, 2),
  );
});

test("flags in many sectors are read through a buffer of one", () => {
  const flags = Array.from({ length: 1500 }, (_, stripe) => stripe % 2);
  const metadata = decodeLegacyMetadata(mediumOf(legacyFile(1, flags)), 3000);
  expect([...metadata.flags]).toEqual(flags.map((flag) => (flag === 0 ? 4 : 2)));
});

test("a stripe of 2^17 sectors is refused", () => {
  const file = legacyFile(17, [0]);
  expect(() => decodeLegacyMetadata(mediumOf(file), 1)).toThrow("2^17 sectors");
});

test("a file without room for the flags of its disk is refused", () => {
  const file = legacyFile(1, [0]);
  expect(() => decodeLegacyMetadata(mediumOf(file), 2 * 512 + 1)).toThrow("was cut");
});

test("a header of version 2, of another magic, and a mark of an unfinished file are not of version 0", () => {
  const header = legacyFile(11, []).subarray(0, 512);
  const changed = (offset: number, value: number) => {
    const copy = header.slice();
    copy[offset] = value;
    return copy;
  };
  expect(isLegacyMetadata(header)).toBe(true);
  expect(isLegacyMetadata(changed(9, 2))).toBe(false);
  expect(isLegacyMetadata(changed(10, 1))).toBe(false);
  expect(isLegacyMetadata(changed(3, 0))).toBe(false);
  expect(isLegacyMetadata(changed(13, 0))).toBe(false);
});

function legacyFile(shift: number, flags: readonly number[]): Uint8Array {
  const file = new Uint8Array(512 + Math.ceil(flags.length / 512) * 512);
  file.set(new TextEncoder().encode("BDEV_UBI"));
  file[13] = shift;
  file.set(flags, 512);
  return file;
}

function mediumOf(file: Uint8Array): MetadataMedium {
  const buffer = new Uint8Array(512);
  return {
    sizeBytes: file.length,
    buffer,
    read: (sector, count) => buffer.set(file.subarray(sector * 512, (sector + count) * 512)),
    write: () => {},
    sync: () => {},
  };
}
