import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { UbiError } from "../errors.ts";
import {
  type BlockConfig,
  CONFIG_BYTES,
  decodeBlockConfig,
  decodeRangeSegment,
  encodeBlockConfig,
  encodeRangeSegment,
  encodeRequestHeader,
  REQUEST_TYPE,
} from "./virtio-blk.ts";

const u32 = fc.nat(0xffffffff);
const u16 = fc.nat(0xffff);
const u8 = fc.nat(0xff);
const config: fc.Arbitrary<BlockConfig> = fc.record({
  capacitySectors: fc.maxSafeNat(),
  segmentSizeMax: u32,
  segmentCountMax: u32,
  blockSize: u32,
  physicalBlockExponent: u8,
  alignmentOffset: u8,
  ioSizeMin: u16,
  ioSizeOptimal: u32,
  writeback: u8,
  queueCount: u16,
  discardSectorsMax: u32,
  discardSegmentsMax: u32,
  discardSectorAlignment: u32,
  writeZeroesSectorsMax: u32,
  writeZeroesSegmentsMax: u32,
  writeZeroesMayUnmap: u8,
});

describe("block device configuration", () => {
  test("each field is at the offset of the specification", () => {
    const bytes = encodeBlockConfig({
      capacitySectors: 8,
      segmentSizeMax: 65536,
      segmentCountMax: 4,
      blockSize: 512,
      physicalBlockExponent: 3,
      alignmentOffset: 1,
      ioSizeMin: 8,
      ioSizeOptimal: 128,
      writeback: 1,
      queueCount: 2,
      discardSectorsMax: 0x11,
      discardSegmentsMax: 0x12,
      discardSectorAlignment: 0x13,
      writeZeroesSectorsMax: 0x14,
      writeZeroesSegmentsMax: 0x15,
      writeZeroesMayUnmap: 1,
    });
    expect(Buffer.from(bytes).toString("hex")).toBe(
      "0800000000000000" +
        "00000100" +
        "04000000" +
        "00000000" +
        "00020000" +
        "03010800" +
        "80000000" +
        "01000200" +
        "11000000" +
        "12000000" +
        "13000000" +
        "14000000" +
        "15000000" +
        "01000000",
    );
  });

  test("what is encoded is decoded again", () => {
    fc.assert(
      fc.property(config, (value) => {
        expect(decodeBlockConfig(encodeBlockConfig(value))).toEqual(value);
      }),
    );
  });

  test("hostile bytes give a value or E_PROTOCOL", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: CONFIG_BYTES + 8 }), (bytes) => {
        expect(codeOf(() => decodeBlockConfig(bytes))).toBeOneOf(["none", "E_PROTOCOL"]);
      }),
    );
  });
});

describe("requests", () => {
  test("a header holds type and sector", () => {
    const bytes = encodeRequestHeader(REQUEST_TYPE.OUT, 0x1_0000_0002);
    expect(Buffer.from(bytes).toString("hex")).toBe("01000000000000000200000001000000");
  });

  test("a range is decoded as encoded", () => {
    fc.assert(
      fc.property(fc.maxSafeNat(), u32, u32, (sector, sectorCount, flags) => {
        const segment = { sector, sectorCount, flags };
        expect(decodeRangeSegment(encodeRangeSegment(segment))).toEqual(segment);
      }),
    );
  });

  test("a short range and an absurd sector are E_PROTOCOL", () => {
    expect(codeOf(() => decodeRangeSegment(new Uint8Array(15)))).toBe("E_PROTOCOL");
    expect(codeOf(() => decodeRangeSegment(new Uint8Array(16).fill(0xff)))).toBe("E_PROTOCOL");
  });
});

function codeOf(action: () => unknown): string {
  try {
    action();
    return "none";
  } catch (error) {
    return error instanceof UbiError ? error.code : String(error);
  }
}
