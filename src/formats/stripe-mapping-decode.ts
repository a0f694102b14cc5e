/**
 * Reads `stripe-mapping` (stripe-mapping.ts draws it), in the memory where it lies: the bytes of `ciphertext` are
 * moved to the front of their array. Every length is held against what is left before it is used, and no memory
 * is taken that the file does not fill.
 *
 * What other writers may do is accepted: byte strings instead of arrays, fields in any order and unknown ones,
 * lengths and numbers longer than needed, indefinite lengths, unsorted stripes (of two entries the last one counts),
 * and bytes behind the end. What no known writer adds is counted, for who wants to know of it.
 *
 * Cost: about 3 ns a byte of the file.
 */
import { UbiError } from "../errors.ts";
import { CborReader, cborError, MAJOR } from "./cbor.ts";
import { numberText, viewBytes } from "./little-endian.ts";
import {
  HASH_BYTES,
  MAPPED_STRIPES_MAX,
  MAPPING_DOMAIN,
  MAPPING_VERSION,
  SIZE_MAGIC,
  SIZE_RECORD_BYTES,
} from "./stripe-mapping.ts";
import { mappingFileBytes, paddedLength } from "./stripe-mapping-encode.ts";
import { SECTOR_BYTES } from "./virtio-blk.ts";

export interface MappingFile {
  /** A part of the file's own memory, which holds nothing else any more. Whole sectors. */
  readonly ciphertext: Uint8Array;
  /** As the file says: not yet to be trusted. */
  readonly plaintextBytes: number;
  readonly hmacTag: Uint8Array;
  /** Bytes behind the map. */
  readonly bytesBehind: number;
  /** By which the map itself is longer than it is written here. Nothing authenticates these either. */
  readonly bytesBetween: number;
}

/**
 * Takes a file apart. It is changed by that.
 * @throws UbiError E_ARCHIVE that does not name the file
 */
export function decodeMappingFile(file: Uint8Array): MappingFile {
  const reader = new CborReader(file);
  const fields = decodeFields(file, reader);
  const version = required(fields.version, "version");
  if (version !== MAPPING_VERSION) {
    throw mappingError(`unsupported stripe-mapping version ${version} (supported 1..=1)`);
  }
  const domain = required(fields.domain, "domain");
  if (
    domain.length !== MAPPING_DOMAIN.length ||
    domain.some((byte, i) => byte !== MAPPING_DOMAIN[i])
  ) {
    throw mappingError("invalid stripe-mapping domain: this is another kind of file");
  }
  const ciphertext = required(fields.ciphertext, "ciphertext");
  if (ciphertext.length % SECTOR_BYTES !== 0) {
    throw mappingError(`its ciphertext is not sector-aligned: ${ciphertext.length} bytes`);
  }
  const plaintextBytes = required(fields.plaintextBytes, "plaintext_len");
  if (plaintextBytes > ciphertext.length) {
    throw mappingError(
      `its plaintext length exceeds ciphertext: ${numberText(plaintextBytes)} bytes`,
    );
  }
  const hmacTag = required(fields.hmacTag, "hmac_tag");
  const bytesBehind = file.length - reader.position;
  const bytesBetween = Math.max(0, reader.position - mappingFileBytes(ciphertext, plaintextBytes));
  return { ciphertext, plaintextBytes, hmacTag, bytesBehind, bytesBetween };
}

export interface StripeVisitor {
  zero(stripe: number): void;
  /** The hash lies in `bytes` from `at` on. */
  stored(stripe: number, bytes: Uint8Array, at: number): void;
}

/**
 * Goes through the entries of a plaintext, in their order there. Returns how many bytes lie behind the last one.
 * @param plaintext without its padding
 * @throws UbiError E_ARCHIVE that does not name the file
 */
export function visitMappedStripes(plaintext: Uint8Array, visitor: StripeVisitor): number {
  const cursor = new Cursor(plaintext);
  if (cursor.readHead() !== MAJOR.MAP) {
    throw cborError(0, "a map of stripes is expected");
  }
  for (let left = cursor.argument; left > 0; left -= 1) {
    if (left === Infinity && cursor.takeBreak()) {
      break;
    }
    visitEntry(cursor, visitor);
  }
  return plaintext.length - cursor.at;
}

/**
 * The size of the disk that the padding records, in bytes; undefined where it records none.
 * @param padded the plaintext with its padding
 */
export function recordedSize(padded: Uint8Array, plaintextBytes: number): number | undefined {
  const at = padded.length - SIZE_RECORD_BYTES;
  if (at < plaintextBytes || SIZE_MAGIC.some((byte, i) => padded[at + i] !== byte)) {
    return undefined;
  }
  return Number(viewBytes(padded).getBigUint64(at + SIZE_MAGIC.length, true));
}

/** Bytes of the padding that are neither zeros nor the record of the size, and those of sectors that it needs not. */
export function strangePadding(padded: Uint8Array, plaintextBytes: number): number {
  const hasSize = recordedSize(padded, plaintextBytes) !== undefined;
  let count = padded.length - paddedLength(plaintextBytes, hasSize);
  const end = padded.length - (hasSize ? SIZE_RECORD_BYTES : 0);
  for (let at = plaintextBytes; at < end; at += 1) {
    count += padded[at] === 0 ? 0 : 1;
  }
  return count;
}

// --- internal ---

interface Fields {
  domain?: Uint8Array;
  version?: number | bigint;
  ciphertext?: Uint8Array;
  plaintextBytes?: number;
  hmacTag?: Uint8Array;
}

function decodeFields(file: Uint8Array, reader: CborReader): Fields {
  const head = reader.nextUntagged();
  if (head.kind !== "map") {
    throw cborError(0, "a map is expected");
  }
  const fields: Fields = {};
  for (let left = head.count; left > 0; left -= 1) {
    const name = reader.nextUntagged();
    if (name.kind === "break" && left === Infinity) {
      break;
    }
    if (name.kind !== "text") {
      throw cborError(reader.position, "the name of a field is expected");
    }
    decodeField(name.value, fields, file, reader);
  }
  return fields;
}

function decodeField(name: string, fields: Fields, file: Uint8Array, reader: CborReader): void {
  switch (name) {
    case "domain":
      refuseSecond(fields.domain, name);
      fields.domain = takeBytes(file, reader);
      break;
    case "version":
      refuseSecond(fields.version, name);
      fields.version = unsignedField(reader, name);
      break;
    case "ciphertext":
      refuseSecond(fields.ciphertext, name);
      fields.ciphertext = takeBytes(file, reader);
      break;
    case "plaintext_len":
      refuseSecond(fields.plaintextBytes, name);
      fields.plaintextBytes = Number(unsignedField(reader, name));
      break;
    case "hmac_tag":
      refuseSecond(fields.hmacTag, name);
      fields.hmacTag = tagField(reader);
      break;
    default:
      reader.skip();
  }
}

function refuseSecond(value: unknown, name: string): void {
  if (value !== undefined) {
    throw mappingError(`duplicate field ${name}`);
  }
}

function unsignedField(reader: CborReader, name: string): number | bigint {
  const item = reader.nextUntagged();
  if (item.kind !== "uint") {
    throw cborError(reader.position, `${name} is not an unsigned integer`);
  }
  return item.value;
}

function tagField(reader: CborReader): Uint8Array {
  const item = reader.nextUntagged();
  if (item.kind !== "bytes" || item.value.length !== HASH_BYTES) {
    throw cborError(reader.position, `hmac_tag is not a byte string of ${HASH_BYTES}`);
  }
  return item.value;
}

/** A byte string, or an array of bytes, which is packed where it lies. */
function takeBytes(file: Uint8Array, reader: CborReader): Uint8Array {
  const cursor = new Cursor(file, reader.position);
  const major = cursor.readUntaggedHead();
  const { at, argument } = cursor;
  if (major === MAJOR.BYTES) {
    cursor.need(argument);
    reader.position = at + argument;
    return file.subarray(at, at + argument);
  }
  if (major !== MAJOR.ARRAY) {
    throw cborError(at, "bytes are expected");
  }
  const end = packElements(cursor, argument);
  reader.position = cursor.at;
  return file.subarray(at, end);
}

/** Moves the bytes of `count` elements together. Returns where they end; the cursor is behind the elements then. */
function packElements(cursor: Cursor, count: number): number {
  const { bytes } = cursor;
  if (count !== Infinity) {
    cursor.need(count);
  }
  let from = cursor.at;
  let to = from;
  for (let left = count; left > 0; left -= 1) {
    const first = bytes[from];
    if (first !== undefined && first < 24) {
      bytes[to] = first;
      from += 1;
    } else if (first === ONE_BYTE_FOLLOWS && from + 1 < bytes.length) {
      bytes[to] = bytes[from + 1] as number;
      from += 2;
    } else {
      cursor.at = from;
      if (left === Infinity && cursor.takeBreak()) {
        return to;
      }
      bytes[to] = cursor.readByteElement();
      from = cursor.at;
    }
    to += 1;
  }
  cursor.at = from;
  return to;
}

function visitEntry(cursor: Cursor, visitor: StripeVisitor): void {
  if (cursor.readHead() !== MAJOR.UINT) {
    throw cborError(cursor.at, "the number of a stripe is expected");
  }
  const stripe = cursor.argument;
  if (stripe >= MAPPED_STRIPES_MAX) {
    throw mappingError(
      `it maps stripe ${numberText(stripe)}; at most ${MAPPED_STRIPES_MAX} stripes can be read`,
    );
  }
  const major = cursor.readHead();
  if (major === MAJOR.TEXT) {
    cursor.takeName(ZERO_NAME);
    visitor.zero(stripe);
    return;
  }
  const pairs = cursor.argument;
  if (major !== MAJOR.MAP || (pairs !== 1 && pairs !== Infinity)) {
    throw cborError(cursor.at, `"Zero" or {"Some": hash} is expected of stripe ${stripe}`);
  }
  visitVariant(cursor, stripe, visitor);
  if (pairs === Infinity && !cursor.takeBreak()) {
    throw cborError(cursor.at, `stripe ${stripe} has more than one value`);
  }
}

function visitVariant(cursor: Cursor, stripe: number, visitor: StripeVisitor): void {
  if (cursor.readHead() !== MAJOR.TEXT) {
    throw cborError(cursor.at, "the name of a variant is expected");
  }
  if (cursor.isName(ZERO_NAME)) {
    cursor.takeName(ZERO_NAME);
    cursor.takeNull();
    visitor.zero(stripe);
    return;
  }
  cursor.takeName(SOME_NAME);
  if (cursor.readUntaggedHead() !== MAJOR.BYTES || cursor.argument !== HASH_BYTES) {
    throw cborError(
      cursor.at,
      `the hash of stripe ${stripe} is not a byte string of ${HASH_BYTES}`,
    );
  }
  cursor.need(HASH_BYTES);
  visitor.stored(stripe, cursor.bytes, cursor.at);
  cursor.at += HASH_BYTES;
}

/** Heads of items, fast enough for millions. */
class Cursor {
  readonly bytes: Uint8Array;
  at: number;
  /** Of the last head. Value or length; Infinity where a break ends it. Rounded above 2^53, where all are too large anyway. */
  argument = 0;

  constructor(bytes: Uint8Array, at = 0) {
    this.bytes = bytes;
    this.at = at;
  }

  need(count: number): void {
    if (count > this.bytes.length - this.at) {
      throw cborError(this.at, "it ends early");
    }
  }

  /** Returns the major type. */
  readHead(): number {
    this.need(1);
    const first = this.bytes[this.at] as number;
    const major = first >> 5;
    const info = first & 31;
    this.at += 1;
    if (info < 24) {
      this.argument = info;
    } else if (info < 28) {
      this.argument = this.#readNumber(1 << (info - 24));
    } else if (info === 31 && (major === MAJOR.ARRAY || major === MAJOR.MAP)) {
      this.argument = Infinity;
    } else {
      throw cborError(this.at - 1, `0x${first.toString(16)} is not expected`);
    }
    return major;
  }

  readUntaggedHead(): number {
    for (;;) {
      const major = this.readHead();
      if (major !== MAJOR.TAG) {
        return major;
      }
    }
  }

  readByteElement(): number {
    if (this.readHead() !== MAJOR.UINT || this.argument > 255) {
      throw cborError(this.at, "an element is not a byte");
    }
    return this.argument;
  }

  takeBreak(): boolean {
    const isBreak = this.bytes[this.at] === BREAK;
    this.at += isBreak ? 1 : 0;
    return isBreak;
  }

  takeNull(): void {
    if (this.bytes[this.at] !== NULL) {
      throw cborError(this.at, "null is expected");
    }
    this.at += 1;
  }

  /** Whether the text whose head was read is `name`, of four letters. */
  isName(name: number): boolean {
    const { bytes, at } = this;
    return (
      this.argument === 4 &&
      at + 4 <= bytes.length &&
      (((bytes[at] as number) << 24) |
        ((bytes[at + 1] as number) << 16) |
        ((bytes[at + 2] as number) << 8) |
        (bytes[at + 3] as number)) ===
        name
    );
  }

  takeName(name: number): void {
    if (!this.isName(name)) {
      throw cborError(this.at, 'neither "Zero" nor "Some"');
    }
    this.at += 4;
  }

  #readNumber(size: number): number {
    this.need(size);
    let value = 0;
    for (let i = 0; i < size; i += 1) {
      value = value * 256 + (this.bytes[this.at + i] as number);
    }
    this.at += size;
    return value;
  }
}

const ONE_BYTE_FOLLOWS = 0x18;
const BREAK = 0xff;
const NULL = 0xf6;
/** The letters as one number. */
const ZERO_NAME = 0x5a65726f;
const SOME_NAME = 0x536f6d65;

function required<T>(value: T | undefined, name: string): T {
  if (value === undefined) {
    throw mappingError(`missing field ${name}`);
  }
  return value;
}

function mappingError(what: string): UbiError {
  return new UbiError("E_ARCHIVE", what);
}
