import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { UbiError } from "../errors.ts";
import * as vhost from "./vhost-user.ts";

const number64 = fc.maxSafeNat();
const region = fc.record({
  guestAddress: number64,
  sizeBytes: number64,
  userAddress: number64,
  mmapOffset: number64,
});

describe("message headers", () => {
  test("a header is three little-endian words", () => {
    const message = vhost.encodeMessage(
      vhost.REQUEST.SET_VRING_NUM,
      vhost.FLAG_NEED_REPLY,
      vhost.encodeVringState({ index: 1, value: 256 }),
    );
    expect(Buffer.from(message).toString("hex")).toBe(
      "08000000" + "09000000" + "08000000" + "01000000" + "00010000",
    );
  });

  test("another version of the protocol is refused", () => {
    const header = new Uint8Array(12);
    vhost.encodeHeader(header, { request: 1, flags: 2, sizeBytes: 0 });
    expect(() => vhost.decodeHeader(header)).toThrow("GET_FEATURES: version 2");
  });

  test.each(['{"command":"stats"}', '{"code":"E_RPC_REQUEST"}'])(
    "%s instead of a message is seen to be of the RPC",
    (json) => {
      const header = new TextEncoder().encode(json).subarray(0, 12);
      expect(() => vhost.decodeHeader(header)).toThrow("JSON came, which belongs to rpc_socket");
    },
  );

  test("a payload above the limit is refused", () => {
    const header = new Uint8Array(12);
    vhost.encodeHeader(header, { request: 99, flags: 1, sizeBytes: 4097 });
    expect(() => vhost.decodeHeader(header)).toThrow("request 99: a payload of 4097 bytes");
  });
});

describe("payloads", () => {
  test("a ring address has the used ring before the available ring", () => {
    const bytes = vhost.encodeVringAddress({
      index: 2,
      flags: 0,
      descriptors: 0x1000,
      used: 0x3000,
      available: 0x2000,
      log: 0,
    });
    expect(bytes.length).toBe(40);
    expect(bytes[17]).toBe(0x30);
    expect(bytes[25]).toBe(0x20);
  });

  test("a memory table with more regions than bytes is refused", () => {
    const bytes = vhost.encodeMemoryTable([]);
    bytes[0] = 2;
    expect(() => vhost.decodeMemoryTable(bytes)).toThrow("8 bytes instead of 72");
  });

  test("an address of 2^53 is refused with its value", () => {
    const bytes = vhost.encodeMemoryRegion({
      guestAddress: 0,
      sizeBytes: 1,
      userAddress: 0,
      mmapOffset: 0,
    });
    bytes[14] = 0x20; // byte 6 of the guest address: 2^53
    expect(() => vhost.decodeMemoryRegion(bytes)).toThrow("guest address 0x20000000000000");
  });

  test("config parts keep to the configuration space", () => {
    const at = (offset: number, length: number) =>
      vhost.encodeConfigPart({ offset, flags: 0, bytes: new Uint8Array(length) });
    expect(vhost.decodeConfigPart(at(0xfff, 1)).offset).toBe(0xfff);
    expect(() => vhost.decodeConfigPart(at(0xfff, 2))).toThrow(UbiError);
    expect(() => vhost.decodeConfigPart(at(0, 0))).toThrow(UbiError);
    expect(() => vhost.decodeConfigPart(at(0xffffffff, 1))).toThrow(UbiError);
  });

  test("an inflight description is read with and without its padding", () => {
    const inflight = { mmapSizeBytes: 4096, mmapOffset: 0, queueCount: 2, queueSize: 128 };
    const bytes = vhost.encodeInflight(inflight);
    expect(vhost.decodeInflight(bytes)).toEqual(inflight);
    expect(vhost.decodeInflight(bytes.subarray(0, 20))).toEqual(inflight);
    expect(() => vhost.decodeInflight(bytes.subarray(0, 22))).toThrow(UbiError);
  });

  test("masks hold bit 63", () => {
    const mask = vhost.bitMask(0, 63);
    expect(vhost.decodeU64(vhost.encodeU64(mask))).toBe(0x8000000000000001n);
    expect(vhost.hasBit(mask, 63)).toBe(true);
    expect(vhost.hasBit(mask, 62)).toBe(false);
  });
});

describe("any payload", () => {
  test("what is encoded is decoded again", () => {
    fc.assert(
      fc.property(fc.array(region, { maxLength: vhost.MEMORY_REGIONS_MAX }), (regions) => {
        expect(vhost.decodeMemoryTable(vhost.encodeMemoryTable(regions))).toEqual(regions);
        for (const one of regions) {
          expect(vhost.decodeMemoryRegion(vhost.encodeMemoryRegion(one))).toEqual(one);
        }
      }),
    );
  });

  test("hostile bytes give a value or E_PROTOCOL, nothing else", () => {
    const decoders = [
      vhost.decodeHeader,
      vhost.decodeU64,
      vhost.decodeVringState,
      vhost.decodeVringAddress,
      vhost.decodeMemoryTable,
      vhost.decodeMemoryRegion,
      vhost.decodeConfigPart,
      vhost.decodeInflight,
    ];
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 80 }),
        fc.constantFrom(...decoders),
        (bytes, decode) => {
          expect(codeOf(() => decode(bytes))).toBeOneOf(["none", "E_PROTOCOL"]);
        },
      ),
      { numRuns: 5000 },
    );
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
