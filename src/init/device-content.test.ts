import { expect, test } from "bun:test";
import { contentOf } from "./device-content.ts";

const withBytes = (offset: number, bytes: readonly number[]) => {
  const device = new Uint8Array(2 ** 17);
  device.set(bytes, offset);
  return device;
};
const ascii = (text: string) => [...text].map((character) => character.charCodeAt(0));

test("zeros are nothing", () => {
  expect(contentOf(new Uint8Array(2 ** 17))).toBeUndefined();
});

/** Offsets as the formats' own documents give them. */
test.each<[string, number, readonly number[]]>([
  ["an ext file system", 0x438, [0x53, 0xef]],
  ["an XFS file system", 0, ascii("XFSB")],
  ["a Btrfs file system", 0x10040, ascii("_BHRfS_M")],
  ["an ISO 9660 file system", 0x8001, ascii("CD001")],
  ["a LUKS volume", 0, [0x4c, 0x55, 0x4b, 0x53, 0xba, 0xbe]],
  ["an LVM volume", 512, ascii("LABELONE")],
  ["swap space", 4086, ascii("SWAPSPACE2")],
  ["a partition table (GPT)", 512, ascii("EFI PART")],
  ["a partition table or boot sector", 510, [0x55, 0xaa]],
])("%s is recognised", (name, offset, bytes) => {
  expect(contentOf(withBytes(offset, bytes))).toBe(name);
});

test("a GPT is told rather than the boot sector in front of it", () => {
  const device = withBytes(510, [0x55, 0xaa]);
  device.set(ascii("EFI PART"), 512);
  expect(contentOf(device)).toBe("a partition table (GPT)");
});

test("a single byte is something, though nobody knows what", () => {
  expect(contentOf(withBytes(99_999, [1]))).toContain("not known");
});

test("a device shorter than any signature is looked at as far as it goes", () => {
  expect(contentOf(new Uint8Array(512))).toBeUndefined();
});
