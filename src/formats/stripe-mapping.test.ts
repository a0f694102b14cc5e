import { describe, expect, test } from "bun:test";
import {
  HASH_BYTES,
  MAPPED_STRIPES_MAX,
  mappingHmacPrefix,
  type StripeKind,
} from "./stripe-mapping.ts";
import { decodeMappingFile, recordedSize, visitMappedStripes } from "./stripe-mapping-decode.ts";
import {
  MappingPlaintext,
  mappingFileHead,
  mappingFileTail,
  writeElements,
} from "./stripe-mapping-encode.ts";

const fromHex = (text: string) => Uint8Array.fromHex(text.replaceAll(/[^0-9a-f]/g, ""));
const HASH = "ab".repeat(HASH_BYTES);
/** {0: Zero, 5: 32 x 0xAB}, as other code encodes it. */
const INNER = `a2 00 645a65726f 05 a1 64536f6d65 5820 ${HASH}`;

type Entries = Readonly<Record<number, string>>;

/** "zero", or a hash in hexadecimal, by stripe. */
function stripesOf(entries: Entries) {
  const numbers = Object.keys(entries).map(Number);
  return {
    stripeEnd: numbers.length === 0 ? 0 : Math.max(...numbers) + 1,
    kind: (stripe: number): StripeKind =>
      entries[stripe] === undefined ? "absent" : entries[stripe] === "zero" ? "zero" : "stored",
    copyHash: (stripe: number, target: Uint8Array, at: number) =>
      target.set(fromHex(entries[stripe] ?? ""), at),
  };
}

function plaintextOf(entries: Entries, sizeBytes?: number): Uint8Array {
  const plaintext = new MappingPlaintext(stripesOf(entries), sizeBytes);
  const bytes = new Uint8Array(plaintext.paddedBytes);
  plaintext.fill(bytes);
  return bytes;
}

function entriesOf(plaintext: Uint8Array): Entries {
  const entries: Record<number, string> = {};
  visitMappedStripes(plaintext, {
    zero: (stripe) => {
      entries[stripe] = "zero";
    },
    stored: (stripe, bytes, at) => {
      entries[stripe] = bytes.subarray(at, at + HASH_BYTES).toHex();
    },
  });
  return entries;
}

const inner = (hex: string) => entriesOf(fromHex(hex));

describe("plaintext", () => {
  test("the worked example, padded to a sector", () => {
    const bytes = plaintextOf({ 0: "zero", 5: HASH });
    expect(bytes.subarray(0, 48)).toEqual(fromHex(INNER));
    expect(bytes.subarray(48)).toEqual(new Uint8Array(464));
  });

  test("no stripe is an empty map in a sector", () => {
    expect(plaintextOf({})).toEqual(Uint8Array.of(0xa0, ...new Uint8Array(511)));
  });

  test("stripe numbers have the shortest form at each limit", () => {
    const widths: readonly [number, string][] = [
      [23, "17"],
      [24, "1818"],
      [255, "18ff"],
      [256, "190100"],
      [65535, "19ffff"],
      [65536, "1a00010000"],
      [16777216, "1a01000000"],
    ];
    for (const [stripe, hex] of widths) {
      const bytes = plaintextOf({ [stripe]: "zero" });
      expect(bytes.subarray(0, hex.length / 2 + 6).toHex()).toBe(`a1${hex}645a65726f`);
    }
  });

  test("pieces of any number of sectors give the same bytes", () => {
    const entries = Object.fromEntries(Array.from({ length: 100 }, (_, i) => [i * 3, HASH]));
    const whole = plaintextOf(entries, 1e9);
    const plaintext = new MappingPlaintext(stripesOf(entries), 1e9);
    const pieces: Uint8Array[] = [];
    for (let left = plaintext.paddedBytes; left > 0; ) {
      const piece = new Uint8Array(Math.min(left, 512 * (1 + (pieces.length % 3)))).fill(0xee);
      plaintext.fill(piece);
      pieces.push(piece);
      left -= piece.length;
    }
    expect(Buffer.concat(pieces).equals(whole)).toBe(true);
    expect(entriesOf(whole)).toEqual(entries);
  });

  test("the size of the disk lies at the very end of the padding", () => {
    const bytes = plaintextOf({ 0: "zero" }, 1536);
    expect(bytes).toHaveLength(512);
    expect(bytes.subarray(496).toHex()).toBe("55424953495a45310006000000000000");
    expect(recordedSize(bytes, 7)).toBe(1536);
  });

  test("the size of the disk gets a sector of its own where the padding is too short", () => {
    // A stored stripe has 41 bytes, a zero one 6, the head of the map 1: 499 in all, and 16 are wanted behind them.
    const fits = Object.fromEntries(Array.from({ length: 12 }, (_, i) => [i, HASH]));
    const { lengthBytes } = new MappingPlaintext(stripesOf(fits), undefined);
    expect(lengthBytes).toBe(1 + 12 * 41);
    expect(new MappingPlaintext(stripesOf(fits), undefined).paddedBytes).toBe(512);
    const bytes = plaintextOf({ ...fits, 12: "zero" }, 1e6);
    expect(bytes).toHaveLength(1024);
    expect(recordedSize(bytes, lengthBytes + 6)).toBe(1e6);
    expect(entriesOf(bytes)).toEqual({ ...fits, 12: "zero" });
  });

  test("zeros are no size, and neither is the plaintext itself", () => {
    expect(recordedSize(plaintextOf({ 0: "zero" }), 7)).toBeUndefined();
    expect(recordedSize(plaintextOf({ 0: "zero" }, 1536), 497)).toBeUndefined();
    expect(recordedSize(new Uint8Array(), 0)).toBeUndefined();
  });
});

describe("entries: accepted", () => {
  test.each([
    ["the worked example", INNER, { 0: "zero", 5: HASH }],
    ["what follows the map", `${INNER} ffffff`, { 0: "zero", 5: HASH }],
    ["an indefinite map", `bf ${INNER.slice(2)} ff`, { 0: "zero", 5: HASH }],
    ["a count longer than needed", `ba 00000002 ${INNER.slice(2)}`, { 0: "zero", 5: HASH }],
    ["a number longer than needed", "a1 1b0000000000000007 645a65726f", { 7: "zero" }],
    ["a name longer than needed", "a1 07 78045a65726f", { 7: "zero" }],
    ["stripes out of order", `a2 05 645a65726f 00 645a65726f`, { 0: "zero", 5: "zero" }],
    ["a stripe twice", `a2 05 645a65726f 05 a1 64536f6d65 5820 ${HASH}`, { 5: HASH }],
    ["a tag before a hash", `a1 05 a1 64536f6d65 c2 5820 ${HASH}`, { 5: HASH }],
    ["an indefinite variant", `a1 05 bf 64536f6d65 5820 ${HASH} ff`, { 5: HASH }],
    ["a hash with a longer length", `a1 05 a1 64536f6d65 590020 ${HASH}`, { 5: HASH }],
    ["Zero with a null", "a1 05 a1 645a65726f f6", { 5: "zero" }],
    ["the largest stripe", "a1 1a0fffffff 645a65726f", { [MAPPED_STRIPES_MAX - 1]: "zero" }],
  ])("%s", (_what, hex, entries) => {
    expect(inner(hex)).toEqual(entries);
  });
});

describe("entries: refused", () => {
  test.each([
    ["nothing", ""],
    ["a list", "80"],
    ["a text as stripe", "a1 6130 645a65726f"],
    ["a negative stripe", "a1 20 645a65726f"],
    ["a stripe too large", "a1 1a10000000 645a65726f"],
    ["a stripe beyond 2^53", "a1 1bffffffffffffffff 645a65726f"],
    ["a name as byte string", "a1 00 445a65726f"],
    ["an unknown name", "a1 00 644e6f6e65"],
    ["Some without a hash", "a1 00 64536f6d65"],
    ["a variant by byte string", `a1 00 a1 44536f6d65 5820 ${HASH}`],
    ["a variant of two pairs", `a1 00 a2 64536f6d65 5820 ${HASH} 645a65726f f6`],
    ["a variant without any pair", "a1 00 a0"],
    ["an open variant of two pairs", `a1 00 bf 64536f6d65 5820 ${HASH} 00 ff`],
    ["a hash as list of integers", `a1 00 a1 64536f6d65 9820 ${"00".repeat(32)}`],
    ["a hash of 31 bytes", `a1 00 a1 64536f6d65 581f ${"ab".repeat(31)}`],
    ["a hash of no bytes", "a1 00 a1 64536f6d65 40"],
    ["a hash as text", `a1 00 a1 64536f6d65 7820 ${"61".repeat(32)}`],
    ["an indefinite hash", `a1 00 a1 64536f6d65 5f 5820 ${HASH} ff`],
    ["a hash that is cut", `a1 00 a1 64536f6d65 5820 ${"ab".repeat(31)}`],
    ["fewer entries than counted", "a2 00 645a65726f"],
    ["more entries than any file has", "bbffffffffffffffff 00 645a65726f"],
    ["an open map without end", "bf 00 645a65726f"],
    ["Zero with a number", "a1 00 a1 645a65726f 05"],
    ["a reserved head", "a1 1c"],
    ["an open number", "a1 1f"],
  ])("%s", (_what, hex) => {
    expect(() => inner(hex)).toThrow(expect.objectContaining({ code: "E_ARCHIVE" }));
  });
});

describe("file", () => {
  const tag = Uint8Array.from({ length: 32 }, (_, i) => 0x80 + i);
  /** A plain file with a tag of no meaning. */
  const fileOf = (entries: Entries) => {
    const plaintext = new MappingPlaintext(stripesOf(entries), undefined);
    const elements = new Uint8Array(plaintext.paddedBytes * 2);
    const end = writeElements(plaintextOf(entries), elements, 0);
    return Uint8Array.from(
      Buffer.concat([
        mappingFileHead(plaintext.paddedBytes),
        elements.subarray(0, end),
        mappingFileTail(plaintext.lengthBytes, tag),
      ]),
    );
  };

  test("the head and the tail of the worked example", () => {
    const hex = fileOf({ 0: "zero", 5: HASH }).toHex();
    expect(hex).toHaveLength(708 * 2);
    expect(hex).toStartWith("a566646f6d61696e981d187518621869186218 6c186b182d".replace(" ", ""));
    expect(hex).toContain(
      "6776657273696f6e016a6369706865727465787499020018a2001864185a18651872186f05",
    );
    expect(hex).toEndWith(`6d706c61696e746578745f6c656e183068686d61635f7461675820${tag.toHex()}`);
  });

  test("what was written is read", () => {
    const file = decodeMappingFile(fileOf({ 0: "zero", 5: HASH }));
    expect(file.plaintextBytes).toBe(48);
    expect(file.hmacTag).toEqual(tag);
    expect(file.ciphertext).toEqual(plaintextOf({ 0: "zero", 5: HASH }));
  });

  test("its bytes are moved within its own memory", () => {
    const bytes = fileOf({ 0: "zero" });
    expect(decodeMappingFile(bytes).ciphertext.buffer).toBe(bytes.buffer);
  });

  test("what the HMAC covers in front of the ciphertext", () => {
    expect(mappingHmacPrefix(48).toHex()).toBe(
      `${Buffer.from("ubiblk-archive-stripe-mapping").toString("hex")}010000003000000000000000`,
    );
  });
});

/** Fields of a small file in hexadecimal: an empty map in a ciphertext of one sector. */
const DOMAIN_BYTES = Buffer.from("ubiblk-archive-stripe-mapping").toString("hex");
const DOMAIN_LIST = `981d ${DOMAIN_BYTES.replaceAll(/../g, "18$&")}`;
const SECTOR_LIST = `990200 18a0 ${"00".repeat(511)}`;
const SECTOR_BYTES_ITEM = `590200 a0 ${"00".repeat(511)}`;
const TAG = `5820 ${"cd".repeat(32)}`;
const FIELDS = {
  domain: `66646f6d61696e ${DOMAIN_LIST}`,
  version: "6776657273696f6e 01",
  ciphertext: `6a63697068657274657874 ${SECTOR_LIST}`,
  plaintext: "6d706c61696e746578745f6c656e 01",
  tag: `68686d61635f746167 ${TAG}`,
};
const fieldsOf = (changed: Partial<typeof FIELDS>) => Object.values({ ...FIELDS, ...changed });
const smallFile = (changed: Partial<typeof FIELDS>) => `a5 ${fieldsOf(changed).join(" ")}`;

describe("file: accepted", () => {
  test.each([
    ["lists of integers", smallFile({})],
    ["domain as byte string", smallFile({ domain: `66646f6d61696e 581d ${DOMAIN_BYTES}` })],
    [
      "ciphertext as byte string",
      smallFile({ ciphertext: `6a63697068657274657874 ${SECTOR_BYTES_ITEM}` }),
    ],
    [
      "a tag before ciphertext",
      smallFile({ ciphertext: `6a63697068657274657874 c2${SECTOR_BYTES_ITEM}` }),
    ],
    ["a tag before hmac_tag", smallFile({ tag: `68686d61635f746167 d818 ${TAG}` })],
    ["another order", `a5 ${fieldsOf({}).reverse().join(" ")}`],
    ["what follows", `${smallFile({})} 0102ff`],
    ["an open map", `bf ${fieldsOf({}).join(" ")} ff`],
    [
      "an open list",
      smallFile({ ciphertext: `6a63697068657274657874 9f ${SECTOR_LIST.slice(6)} ff` }),
    ],
    [
      "elements longer than needed",
      smallFile({
        ciphertext: `6a63697068657274657874 990200 1900a0 1a00000000 1b0000000000000000 1800 ${"00".repeat(508)}`,
      }),
    ],
    ["a version longer than needed", smallFile({ version: "6776657273696f6e 1b0000000000000001" })],
    [
      "unknown fields",
      `a8 ${fieldsOf({}).join(" ")} 6178 a1 01 82 c1 f5 9f 01 ff 6179 4101 617a f97e00`,
    ],
  ])("%s", (_what, hex) => {
    const file = decodeMappingFile(fromHex(hex));
    expect(file.ciphertext).toEqual(Uint8Array.of(0xa0, ...new Uint8Array(511)));
    expect(file.plaintextBytes).toBe(1);
    expect(file.hmacTag).toEqual(new Uint8Array(32).fill(0xcd));
  });
});

describe("file: refused", () => {
  const without = (name: keyof typeof FIELDS) => {
    const { [name]: _, ...others } = FIELDS;
    return `a4 ${Object.values(others).join(" ")}`;
  };
  test.each([
    ["text", Buffer.from("not-cbor").toString("hex"), "not the CBOR"],
    ["nothing", "", "ends early"],
    ["a list", "80", "a map is expected"],
    ["no domain", without("domain"), "missing field domain"],
    ["no version", without("version"), "missing field version"],
    ["no ciphertext", without("ciphertext"), "missing field ciphertext"],
    ["no length", without("plaintext"), "missing field plaintext_len"],
    ["no tag", without("tag"), "missing field hmac_tag"],
    [
      "a field twice",
      `a6 ${fieldsOf({}).join(" ")} ${FIELDS.ciphertext}`,
      "duplicate field ciphertext",
    ],
    [
      "version 2",
      smallFile({ version: "6776657273696f6e 02" }),
      "unsupported stripe-mapping version 2",
    ],
    [
      "version 2^64 - 1",
      smallFile({ version: "6776657273696f6e 1bffffffffffffffff" }),
      "version 18446744073709551615",
    ],
    ["version -1", smallFile({ version: "6776657273696f6e 20" }), "not an unsigned integer"],
    [
      "another domain",
      smallFile({ domain: "66646f6d61696e 8101" }),
      "invalid stripe-mapping domain",
    ],
    [
      "a domain of text",
      smallFile({ domain: `66646f6d61696e 781d ${DOMAIN_BYTES}` }),
      "bytes are expected",
    ],
    [
      "half a sector",
      smallFile({ ciphertext: "6a63697068657274657874 8101" }),
      "not sector-aligned: 1 bytes",
    ],
    [
      "an element of 256",
      smallFile({ ciphertext: "6a63697068657274657874 81190100" }),
      "not a byte",
    ],
    ["an element of -1", smallFile({ ciphertext: "6a63697068657274657874 8120" }), "not a byte"],
    [
      "a list longer than the file",
      smallFile({ ciphertext: "6a63697068657274657874 9bffffffffffffffff" }),
      "ends early",
    ],
    [
      "a string longer than the file",
      smallFile({ ciphertext: "6a63697068657274657874 5a7fffffff" }),
      "ends early",
    ],
    [
      "an open byte string",
      smallFile({ ciphertext: "6a63697068657274657874 5f41a0ff" }),
      "not expected",
    ],
    [
      "a length beyond the ciphertext",
      smallFile({ plaintext: "6d706c61696e746578745f6c656e 190201" }),
      "plaintext length exceeds ciphertext",
    ],
    [
      "a length of 2^64 - 1",
      smallFile({ plaintext: "6d706c61696e746578745f6c656e 1bffffffffffffffff" }),
      "plaintext length exceeds ciphertext",
    ],
    [
      "a tag of 31 bytes",
      smallFile({ tag: `68686d61635f746167 581f ${"cd".repeat(31)}` }),
      "not a byte string of 32",
    ],
    [
      "a tag as list",
      smallFile({ tag: `68686d61635f746167 9820 ${"01".repeat(32)}` }),
      "not a byte string of 32",
    ],
    ["an open tag", smallFile({ tag: `68686d61635f746167 5f ${TAG} ff` }), "indefinite"],
    ["a number as name", `a6 ${fieldsOf({}).join(" ")} 01 01`, "name of a field"],
    [
      "an unknown field nested too deep",
      `a6 6178 ${"81".repeat(100)}00 ${fieldsOf({}).join(" ")}`,
      "nested",
    ],
    ["an unknown field that is cut", `a6 ${fieldsOf({}).join(" ")} 6178 82 01`, "ends early"],
    ["an unknown field that is only a tag", `a6 ${fieldsOf({}).join(" ")} 6178 c1`, "ends early"],
    ["a break where nothing is open", `a6 ${fieldsOf({}).join(" ")} 6178 ff`, "nothing is open"],
  ])("%s", (_what, hex, message) => {
    expect(() => decodeMappingFile(fromHex(hex))).toThrow(message);
    expect(() => decodeMappingFile(fromHex(hex))).toThrow(
      expect.objectContaining({ code: "E_ARCHIVE" }),
    );
  });

  test("a million nested lists in an unknown field end in an error at once", () => {
    const head = fromHex("a6 6178");
    const file = new Uint8Array(head.length + 1_000_000).fill(0x81);
    file.set(head);
    expect(() => decodeMappingFile(file)).toThrow("more than 64 values are nested");
  });
});
