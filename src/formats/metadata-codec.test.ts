import { describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { crc32 } from "node:zlib";
import fc from "fast-check";
import { UbiError } from "../errors.ts";
import {
  countStripes,
  groupOfStripe,
  type Metadata,
  type MetadataMedium,
  metadataBytes,
  newMetadata,
  sectorOfGroup,
  stripesOf,
} from "./metadata.ts";
import {
  appendStripes,
  decodeMetadata,
  encodeGroup,
  encodeMetadata,
  readStripeFlags,
  replaceNote,
} from "./metadata-codec.ts";

/** A medium in memory that moves `stride` sectors at most, and keeps what it held at every sync. */
class MemoryMedium implements MetadataMedium {
  readonly bytes: Uint8Array;
  readonly buffer: Uint8Array;
  readonly writes: number[] = [];
  syncs = 0;

  constructor(bytes: Uint8Array, stride = 3) {
    this.bytes = bytes;
    this.buffer = new Uint8Array(stride * 512).fill(0xee);
  }

  get sizeBytes(): number {
    return this.bytes.length;
  }

  read(sector: number, sectorCount: number): void {
    this.buffer.set(this.bytes.subarray(sector * 512, (sector + sectorCount) * 512));
  }

  write(sector: number, sectorCount: number): void {
    this.writes.push(sector);
    this.bytes.set(this.buffer.subarray(0, sectorCount * 512), sector * 512);
    this.buffer.fill(0xee);
  }

  sync(): void {
    this.syncs += 1;
  }
}

describe("vectors made by another implementation", () => {
  test("16 stripes of 1 MiB, 4 of them in the source", () => {
    const bytes = encode(newMetadata({ stripeShift: 11, stripeCount: 16 }, (i) => i < 4));
    expect(hex(bytes.subarray(0, 18))).toBe("424445565f55424900020000000b10000000");
    expect(hex(bytes.subarray(508, 512))).toBe("8bc99f88");
    expect(hex(bytes.subarray(1020))).toBe("f2cc1c8e");
    expect(sha256(bytes)).toBe("2727fde0b0a3096dce1ce911a18561b5046e482575cac82fc2ad49cfaee3f7ab");
  });

  test("509 stripes, all in the source", () => {
    const bytes = encode(newMetadata({ stripeShift: 11, stripeCount: 509 }, () => true));
    const checksums = [508, 1020, 1532].map((at) => hex(bytes.subarray(at, at + 4)));
    expect(checksums).toEqual(["f349d493", "5e4bc601", "527368a7"]);
    expect(sha256(bytes)).toBe("aae5bb40426cb31b487b7788b361ada6964786c83d2a21d41d89ca5a733f7f34");
  });
});

test.each([
  { stripes: 0, bytes: 512 },
  { stripes: 20, bytes: 1024 },
  { stripes: 508, bytes: 1024 },
  { stripes: 509, bytes: 1536 },
])("$stripes stripes need $bytes bytes", ({ stripes, bytes }) => {
  expect(metadataBytes(stripes)).toBe(bytes);
});

test("a stripe is found 508 to a sector, behind the header", () => {
  const sectors = [0, 507, 508, 1015, 1016].map((stripe) => sectorOfGroup(groupOfStripe(stripe)));
  expect(sectors).toEqual([1, 1, 2, 2, 3]);
});

test("a short last stripe of a disk counts", () => {
  expect([0, 1, 2048, 2049].map((sectors) => stripesOf(sectors, 11))).toEqual([0, 1, 1, 2]);
});

test("what the source has is marked, and nothing else", () => {
  const has = new Set([0, 2, 3, 6, 8]);
  const { flags } = newMetadata({ stripeShift: 11, stripeCount: 10 }, (stripe) => has.has(stripe));
  expect([...flags]).toEqual([4, 0, 4, 4, 0, 0, 4, 0, 4, 0]);
});

test("counts: a stripe is unfetched only while it is in the source and not fetched", () => {
  const flags = Uint8Array.of(0, 1, 2, 3, 4, 5, 6, 7, 0x80, 0x85);
  expect(countStripes(flags)).toEqual({
    fetched: 5,
    written: 4,
    hasSource: 5,
    unfetched: 2,
    reserved: 2,
  });
});

test.each([0, 1, 2, 16, 100, 507, 508, 509, 1016, 1200])(
  "%i stripes in a file of 4 MiB come back, zeros behind them",
  (stripeCount) => {
    const flags = Uint8Array.from({ length: stripeCount }, (_, i) => (i * 37) % 256);
    const medium = new MemoryMedium(new Uint8Array(4 << 20).fill(0x55));
    encodeMetadata({ stripeShift: 11, stripeCount, flags }, medium);
    expect(decodeMetadata(medium)).toEqual({ stripeShift: 11, stripeCount, flags });
    const rest = medium.bytes.subarray(metadataBytes(stripeCount));
    expect(rest.every((byte) => byte === 0)).toBe(true);
  },
);

test("any metadata comes back, reserved bits included, whatever the size of the pieces", () => {
  const flags = fc.uint8Array({ maxLength: 2000, size: "max" });
  fc.assert(
    fc.property(flags, fc.nat(17), fc.integer({ min: 1, max: 9 }), (value, stripeShift, stride) => {
      const metadata = { stripeShift, stripeCount: value.length, flags: value };
      const medium = new MemoryMedium(encode(metadata, stride), stride);
      expect(decodeMetadata(medium)).toEqual(metadata);
    }),
  );
});

test("the flags of one stripe are read by themselves, and only when their group is whole", () => {
  const flags = Uint8Array.from({ length: 1200 }, (_, i) => (i * 37) % 256);
  const header = { stripeShift: 6, stripeCount: flags.length };
  const medium = new MemoryMedium(encode({ ...header, flags }));
  for (const stripe of [0, 1, 507, 508, 1015, 1016, 1199]) {
    expect(readStripeFlags(medium, header, stripe)).toBe((stripe * 37) % 256);
  }
  medium.bytes[1024 + 100] = 0x5a;
  expect(readStripeFlags(medium, header, 507)).toBe((507 * 37) % 256);
  expect(() => readStripeFlags(medium, header, 508)).toThrow("group 1 (stripes 508 to 1015");
});

test("flags may be put into memory that threads share", () => {
  const shared = new SharedArrayBuffer(1200);
  const medium = new MemoryMedium(
    encode(newMetadata({ stripeShift: 6, stripeCount: 1200 }, (i) => i % 2 === 0)),
  );
  const { flags } = decodeMetadata(medium, () => new Uint8Array(shared));
  expect(flags.buffer).toBe(shared);
  const sector = new Uint8Array(512);
  encodeGroup(flags, 1, sector);
  expect(hex(sector)).toBe(hex(medium.bytes.subarray(1024, 1536)));
});

describe("a damaged file is refused with the place", () => {
  const good = encode(newMetadata({ stripeShift: 11, stripeCount: 600 }, () => true));

  test.each([
    { what: "a bit in sector 1", at: 600, named: "group 0 (stripes 0 to 507, sector 1)" },
    { what: "a byte in sector 2", at: 1100, named: "group 1 (stripes 508 to 599, sector 2)" },
    { what: "the CRC of sector 2", at: 1535, named: "group 1 " },
    { what: "byte 1 of the header", at: 1, named: "header: " },
    { what: "the number of stripes", at: 14, named: "header: its CRC-32 does not fit: the sector" },
  ])("$what", ({ at, named }) => {
    const bytes = Uint8Array.from(good);
    bytes[at] = (bytes[at] ?? 0) ^ 0x10;
    expect(failureOf(bytes)).toContain(named);
  });

  test("every single bit of header and groups in use matters", () => {
    fc.assert(
      fc.property(fc.nat(good.length * 8 - 1), (bit) => {
        const bytes = Uint8Array.from(good);
        bytes[bit >> 3] = (bytes[bit >> 3] ?? 0) ^ (1 << (bit & 7));
        expect(failureOf(bytes)).toStartWith(bit < 4096 ? "header: " : "group ");
      }),
      { numRuns: 2000 },
    );
  });

  test.each([
    { what: "nothing", bytes: new Uint8Array(0), named: "0 bytes" },
    { what: "half a sector", bytes: good.subarray(0, 511), named: "511 bytes" },
    { what: "a cut sector", bytes: good.subarray(0, 1100), named: "not a multiple of 512" },
    { what: "a group missing", bytes: good.subarray(0, 1024), named: "cut to 1024" },
    { what: "zeros", bytes: new Uint8Array(1024), named: "it is empty; run init-metadata" },
  ])("$what", ({ bytes, named }) => {
    expect(failureOf(bytes)).toContain(named);
  });

  test.each([
    { what: "another magic", at: 7, value: 0x4a, named: "header: wrong magic" },
    { what: "a later minor version", at: 11, value: 1, named: "version 2.1" },
    { what: "a later major version", at: 9, value: 3, named: "version 3.0" },
    { what: "stripes of 128 MiB", at: 13, value: 18, named: "2^18 sectors is too large" },
    { what: "more stripes than fit", at: 16, value: 1, named: "was cut to 1536" },
  ])("a header with a right checksum and $what", ({ at, value, named }) => {
    const bytes = Uint8Array.from(good);
    bytes[at] = value;
    new DataView(bytes.buffer).setUint32(508, crc32(bytes.subarray(0, 508)), true);
    expect(failureOf(bytes)).toContain(named);
  });

  test("stripes of one sector are accepted, and sectors behind the last group are not looked at", () => {
    const medium = new MemoryMedium(new Uint8Array(2048));
    encodeMetadata(
      newMetadata({ stripeShift: 0, stripeCount: 3 }, () => false),
      medium,
    );
    medium.bytes.fill(0xff, 1024);
    expect(decodeMetadata(medium).stripeShift).toBe(0);
  });

  test("bytes of any kind are metadata or an error, never a crash", () => {
    const sized = fc.integer({ min: 0, max: 5 }).chain((sectors) => {
      const length = { minLength: sectors * 512, maxLength: sectors * 512, size: "max" as const };
      return fc.uint8Array(length);
    });
    fc.assert(
      fc.property(sized, fc.boolean(), (bytes, isPlausible) => {
        if (isPlausible && bytes.length >= 512) {
          bytes.set(good.subarray(0, 13));
          new DataView(bytes.buffer).setUint32(508, crc32(bytes.subarray(0, 508)), true);
        }
        expect(failureOf(bytes)).toBeString();
      }),
    );
  });
});

describe("writing over earlier metadata is safe against a crash", () => {
  const earlier: Metadata = {
    stripeShift: 11,
    stripeCount: 1200,
    flags: new Uint8Array(1200).fill(7),
  };
  const later = newMetadata({ stripeShift: 12, stripeCount: 900 }, () => true);

  test("the header is marked before, and written behind, all else, with a sync between", () => {
    const medium = new MemoryMedium(encode(earlier));
    const events: string[] = [];
    encodeMetadata(later, {
      sizeBytes: medium.sizeBytes,
      buffer: medium.buffer,
      read: () => undefined,
      write: (sector) => events.push(sector === 0 ? "header" : "groups"),
      sync: () => events.push("sync"),
    });
    expect(events).toEqual(["header", "sync", "groups", "sync", "header", "sync"]);
  });

  test("a write that is cut short leaves what no reader accepts, and tells what to do", () => {
    for (let cut = 1; ; cut += 1) {
      const medium = new MemoryMedium(encode(earlier), 1);
      if (encodeUntil(cut, later, medium)) {
        expect(decodeMetadata(medium)).toEqual(later);
        break;
      }
      expect(failureOf(medium.bytes)).toContain("cut short; run it again");
    }
  });
});

describe("the note of an archive", () => {
  const note = {
    mapping: Uint8Array.from({ length: 32 }, (_, i) => 200 + i),
    modifiedNs: 1_796_014_958_468_397_800n,
    changedNs: 2n ** 63n + 5n,
  };
  const plain = newMetadata({ stripeShift: 11, stripeCount: 600 }, (i) => i % 3 === 0);

  test("is read as it was written; the flags, and all else of the header, stay", () => {
    const medium = new MemoryMedium(encode(plain));
    replaceNote(medium, note);
    expect(decodeMetadata(medium)).toEqual({ ...plain, note });
    expect(hex(medium.bytes.subarray(18, 26))).toBe(Buffer.from("UBIARCH1").toString("hex"));
    expect(medium.bytes.subarray(512)).toEqual(encode(plain).subarray(512));
    replaceNote(medium, undefined);
    expect(medium.bytes).toEqual(encode(plain));
  });

  test("goes when stripes are added: whoever adds them may not know whether it is true", () => {
    const medium = new MemoryMedium(encode({ ...plain, note }));
    const flags = new Uint8Array(601);
    flags.set(plain.flags);
    appendStripes({ stripeShift: 11, stripeCount: 601, flags }, 600, medium);
    expect(decodeMetadata(medium)).toEqual({ stripeShift: 11, stripeCount: 601, flags });
  });
});

describe("appending stripes", () => {
  const shift = { stripeShift: 11 };
  /** Two groups, the second of which ends in the middle, with every flag. */
  const before: Metadata = {
    ...shift,
    stripeCount: 900,
    flags: Uint8Array.from({ length: 900 }, (_, i) => i % 8),
  };
  const grown = (stripeCount: number): Metadata => {
    const flags = new Uint8Array(stripeCount);
    flags.set(before.flags);
    return { ...shift, stripeCount, flags };
  };
  const roomy = (metadata: Metadata, stripes: number) => {
    const medium = new MemoryMedium(new Uint8Array(metadataBytes(stripes)).fill(0xa5));
    medium.bytes.set(encode(metadata));
    return medium;
  };

  test.each([
    { stripes: 901, what: "in the same group" },
    { stripes: 1016, what: "up to the end of the group" },
    { stripes: 1017, what: "in one more group" },
    { stripes: 9000, what: "in many groups" },
  ])("$what: all of before, and behind it nothing done yet", ({ stripes }) => {
    const medium = roomy(before, stripes);
    appendStripes(grown(stripes), 900, medium);
    expect(decodeMetadata(medium)).toEqual(grown(stripes));
    expect(medium.bytes).toEqual(encode(grown(stripes)));
  });

  test("bytes that another program left behind the last stripe are no flags", () => {
    const medium = roomy(before, 1016);
    const group = medium.bytes.subarray(1024, 1536);
    group.fill(7, 900 - 508, 508);
    new DataView(group.buffer).setUint32(1024 + 508, crc32(group.subarray(0, 508)), true);
    appendStripes(grown(1016), 900, medium);
    expect(decodeMetadata(medium)).toEqual(grown(1016));
  });

  test("a power failure at any moment leaves the metadata of before, or all of the new one", () => {
    const after = grown(4000);
    const seen = new Set<number>();
    let states = 0;
    for (const bytes of statesAfterPowerLoss(roomy(before, 4000), (medium) =>
      appendStripes(after, 900, medium),
    )) {
      const found = decodeMetadata(new MemoryMedium(bytes));
      seen.add(found.stripeCount);
      expect(found).toEqual(found.stripeCount === 900 ? before : after);
      states += 1;
    }
    expect([...seen].sort()).toEqual([4000, 900]);
    expect(states).toBeGreaterThan(20);
  });
});

/** What a medium may hold: of the sectors written since the last sync each is there or not, at every write. */
function* statesAfterPowerLoss(
  medium: MemoryMedium,
  work: (medium: MetadataMedium) => void,
): Generator<Uint8Array> {
  const events: ({ readonly sector: number; readonly bytes: Uint8Array } | "sync")[] = [];
  const start = Uint8Array.from(medium.bytes);
  work({
    sizeBytes: medium.sizeBytes,
    buffer: medium.buffer,
    read: (sector, count) => medium.read(sector, count),
    write: (sector, count) => {
      for (let i = 0; i < count; i += 1) {
        const bytes = medium.buffer.slice(i * 512, (i + 1) * 512);
        events.push({ sector: sector + i, bytes });
      }
      medium.write(sector, count);
    },
    sync: () => events.push("sync"),
  });
  let certain: Uint8Array = start;
  let open: { readonly sector: number; readonly bytes: Uint8Array }[] = [];
  yield certain;
  for (const event of events) {
    if (event === "sync") {
      certain = withSectors(certain, open);
      open = [];
      yield certain;
      continue;
    }
    open.push(event);
    for (let subset = 0; subset < 2 ** open.length; subset += 1) {
      yield withSectors(
        certain,
        open.filter((_, i) => ((subset >> i) & 1) === 1),
      );
    }
  }
}

function withSectors(
  bytes: Uint8Array,
  sectors: readonly { readonly sector: number; readonly bytes: Uint8Array }[],
): Uint8Array {
  const copy = Uint8Array.from(bytes);
  for (const each of sectors) {
    copy.set(each.bytes, each.sector * 512);
  }
  return copy;
}

/** Encodes with an end after `cut` writes. True when that was all of it. */
function encodeUntil(cut: number, metadata: Metadata, medium: MemoryMedium): boolean {
  const end = new Error("cut");
  const write = (sector: number, sectorCount: number) => {
    medium.write(sector, sectorCount);
    if (medium.writes.length === cut && medium.syncs < 2) {
      throw end;
    }
  };
  try {
    const { sizeBytes, buffer } = medium;
    encodeMetadata(metadata, {
      sizeBytes,
      buffer,
      write,
      read: () => undefined,
      sync: () => medium.sync(),
    });
    return true;
  } catch (error) {
    expect(error).toBe(end);
    return false;
  }
}

function encode(metadata: Metadata, stride = 3): Uint8Array {
  const medium = new MemoryMedium(new Uint8Array(metadataBytes(metadata.stripeCount)), stride);
  encodeMetadata(metadata, medium);
  return medium.bytes;
}

/** The message that reading fails with, or nothing. */
function failureOf(bytes: Uint8Array): string {
  try {
    decodeMetadata(new MemoryMedium(bytes));
    return "";
  } catch (error) {
    if (error instanceof UbiError && error.code === "E_METADATA") {
      return error.message;
    }
    throw error;
  }
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex");
}

function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}
