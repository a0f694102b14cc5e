/**
 * `metadata.json`, the parameters of an archive:
 *
 *   {"format_version":1,"stripe_sector_count":2048,"encryption_key":null,"compression":"none",
 *    "hmac_key":"...","metadata_hmac":"..."}
 *
 * without spaces, in this order; binary values in base64. `metadata_hmac` is HMAC-SHA-256 over
 *
 *   offset  0                         24          28                  36    37
 *           +-------------------------+-----------+-------------------+-----+--------------------------+
 *           | ARCHIVE_METADATA_HMAC_V1 | version 4 | sectors a stripe 8 | 0   |                         |
 *           |                         |           |                   | 1   | length 8 | encryption_key |
 *           +-------------------------+-----------+-------------------+-----+--------------------------+
 *           | 0: no compression, or 2: zstd, then its level 4 |                     all little endian
 *           +-------------------------------------------------+
 *
 * with the key's stored bytes. A reader takes keys in any order, and ignores those that it does not know.
 */
import { assert, UbiError } from "../errors.ts";
import { findRepeatedKey } from "./json-keys.ts";
import { viewBytes, writeNumber64 } from "./little-endian.ts";

export type Compression =
  | { readonly kind: "none" }
  | { readonly kind: "zstd"; readonly level: number };

export const HMAC_KEY_BYTES = 32;
export const HMAC_TAG_BYTES = 32;
/** The longest file that is read; one that `encodeArchiveMetadata` makes has less than 1 KiB. */
export const ARCHIVE_METADATA_BYTES_MAX = 64 * 1024;

/** What the HMAC protects. */
export interface ArchiveParameters {
  readonly stripeSectors: number;
  /** As stored: perhaps wrapped. undefined where stripes are not enciphered. */
  readonly encryptionKey: Uint8Array | undefined;
  readonly compression: Compression;
}

export interface ArchiveMetadata extends ArchiveParameters {
  /** As stored: perhaps wrapped. */
  readonly hmacKey: Uint8Array;
  readonly metadataHmac: Uint8Array;
}

export function encodeArchiveMetadata(metadata: ArchiveMetadata): Uint8Array {
  const { stripeSectors, encryptionKey, compression, hmacKey, metadataHmac } = metadata;
  assert(metadataHmac.length === HMAC_TAG_BYTES, "a tag has 32 bytes");
  return new TextEncoder().encode(
    JSON.stringify({
      format_version: FORMAT_VERSION,
      stripe_sector_count: stripeSectors,
      encryption_key: encryptionKey?.toBase64() ?? null,
      compression: compression.kind === "none" ? "none" : { zstd: { level: compression.level } },
      hmac_key: hmacKey.toBase64(),
      metadata_hmac: metadataHmac.toBase64(),
    }),
  );
}

/**
 * Nothing in the result is to be trusted before its HMAC was checked.
 * @throws UbiError E_ARCHIVE that does not name the file
 */
export function decodeArchiveMetadata(bytes: Uint8Array): ArchiveMetadata {
  const fields = parseFields(bytes);
  const version = unsigned(fields, "format_version");
  if (version !== FORMAT_VERSION) {
    throw damaged(`unsupported archive format version ${version} (supported 1..=1)`);
  }
  return {
    stripeSectors: unsigned(fields, "stripe_sector_count"),
    encryptionKey: fields.encryption_key == null ? undefined : base64(fields, "encryption_key"),
    compression: compressionOf(fields.compression),
    hmacKey: base64(fields, "hmac_key"),
    metadataHmac: base64(fields, "metadata_hmac"),
  };
}

/** The bytes that `metadata_hmac` authenticates. */
export function metadataHmacInput(parameters: ArchiveParameters): Uint8Array {
  const { stripeSectors, encryptionKey, compression } = parameters;
  const bytes = new Uint8Array(LONGEST_FIXED_PART + (encryptionKey?.length ?? 0));
  const view = viewBytes(bytes);
  bytes.set(HMAC_DOMAIN);
  view.setUint32(OFFSET.VERSION, FORMAT_VERSION, true);
  writeNumber64(view, OFFSET.STRIPE_SECTORS, stripeSectors);
  let at: number = OFFSET.KEY;
  if (encryptionKey !== undefined) {
    bytes[OFFSET.HAS_KEY] = 1;
    writeNumber64(view, at, encryptionKey.length);
    bytes.set(encryptionKey, at + 8);
    at += 8 + encryptionKey.length;
  }
  if (compression.kind === "zstd") {
    bytes[at] = ZSTD;
    view.setInt32(at + 1, compression.level, true);
    at += 4;
  }
  return bytes.subarray(0, at + 1);
}

// --- internal ---

const FORMAT_VERSION = 1;
const HMAC_DOMAIN = new TextEncoder().encode("ARCHIVE_METADATA_HMAC_V1");
const OFFSET = { VERSION: 24, STRIPE_SECTORS: 28, HAS_KEY: 36, KEY: 37 } as const;
/** All but the key: its length, the kind of compression and its level end it. */
const LONGEST_FIXED_PART = OFFSET.KEY + 8 + 1 + 4;
const ZSTD = 2;
const INT32_MAX = 2 ** 31 - 1;

const OPTIONAL_KEYS = ["encryption_key", "compression"];
const KEYS: readonly string[] = [
  ...OPTIONAL_KEYS,
  ...["format_version", "stripe_sector_count", "hmac_key", "metadata_hmac"],
];

type Fields = Readonly<Record<string, unknown>>;

function parseFields(bytes: Uint8Array): Fields {
  if (bytes.length > ARCHIVE_METADATA_BYTES_MAX) {
    throw damaged(`it has ${bytes.length} bytes, at most ${ARCHIVE_METADATA_BYTES_MAX} are read`);
  }
  const { text, value } = parseJson(bytes);
  const repeated = findRepeatedKey(text);
  if (repeated !== undefined) {
    throw damaged(`duplicate field ${JSON.stringify(repeated.slice(0, SHOWN_CHARACTERS))}`);
  }
  if (!isObject(value)) {
    throw damaged("it is not a JSON object");
  }
  checkNames(value);
  return value;
}

/** A key that may be left out, and one that nobody knows: more likely one damaged name than both. */
function checkNames(fields: Fields): void {
  const missing = OPTIONAL_KEYS.find((name) => !Object.hasOwn(fields, name));
  const unknown = Object.keys(fields).find((name) => !KEYS.includes(name));
  if (missing !== undefined && unknown !== undefined) {
    throw damaged(
      `missing field ${missing}, and unknown field ${JSON.stringify(unknown.slice(0, SHOWN_CHARACTERS))}`,
    );
  }
}

function parseJson(bytes: Uint8Array): { readonly text: string; readonly value: unknown } {
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    return { text, value: JSON.parse(text) };
  } catch {
    // Messages of a JSON parser may show what they stumble on, and here that may be a key.
    throw damaged("it is not JSON in UTF-8");
  }
}

function unsigned(fields: Fields, name: string): number {
  const value = own(fields, name);
  if (value === undefined) {
    throw damaged(`missing field ${name}`);
  }
  if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 0) {
    throw damaged(`field ${name} is not a whole number from 0 to 2^53 - 1`);
  }
  return value;
}

/** Empty when it is missing. */
function base64(fields: Fields, name: string): Uint8Array {
  const value = own(fields, name) === undefined ? "" : fields[name];
  if (typeof value !== "string") {
    throw damaged(`field ${name} is not text`);
  }
  if (/\s/.test(value)) {
    throw damaged(`field ${name} is not base64: it has spaces`);
  }
  try {
    return Uint8Array.fromBase64(value, { lastChunkHandling: "strict" });
  } catch {
    throw damaged(`field ${name} is not base64 in the standard alphabet with its padding`);
  }
}

function compressionOf(value: unknown): Compression {
  if (value === undefined || value === "none") {
    return { kind: "none" };
  }
  const names = isObject(value) ? Object.keys(value) : [];
  if (!isObject(value) || names.length !== 1 || names[0] !== "zstd" || !isObject(value.zstd)) {
    throw damaged('field compression is neither "none" nor {"zstd":{"level":...}}');
  }
  const level = own(value.zstd, "level");
  if (level === undefined) {
    throw damaged("missing field level of compression");
  }
  if (
    typeof level !== "number" ||
    !Number.isInteger(level) ||
    Math.abs(level + 0.5) > INT32_MAX + 0.5
  ) {
    throw damaged("invalid value for field level of compression: an i32 is expected");
  }
  return { kind: "zstd", level };
}

function isObject(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Not what every object inherits. */
function own(fields: Fields, name: string): unknown {
  return Object.hasOwn(fields, name) ? fields[name] : undefined;
}

const SHOWN_CHARACTERS = 40;

function damaged(what: string): UbiError {
  return new UbiError("E_ARCHIVE", what);
}
