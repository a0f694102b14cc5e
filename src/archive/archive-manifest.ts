/**
 * The manifest of an archive, its two objects `metadata.json` and `stripe-mapping`. What it says is used only
 * after its authentication: the version is looked at, keys are unwrapped, the HMAC of the parameters is checked over
 * the bytes as they are stored, then that of the map; only then is anything else of them believed.
 */
import { createHmac, timingSafeEqual } from "node:crypto";
import { UbiError } from "../errors.ts";
import { XTS_KEY_BYTES } from "../ffi/xts.ts";
import {
  ARCHIVE_METADATA_BYTES_MAX,
  type ArchiveMetadata,
  type ArchiveParameters,
  type Compression,
  decodeArchiveMetadata,
  encodeArchiveMetadata,
  HMAC_KEY_BYTES,
  HMAC_TAG_BYTES,
  metadataHmacInput,
} from "../formats/archive-metadata.ts";
import { STRIPE_SHIFT_MAX } from "../formats/metadata.ts";
import { type ArchiveKeys, unwrapKey, wrapKey } from "./archive-keys.ts";
import type { ObjectStore } from "./object-store.ts";
import type { StripeMap } from "./stripe-map.ts";
import { decodeMapping } from "./stripe-map-file.ts";

export type { Compression } from "../formats/archive-metadata.ts";
export { encodeMapping } from "./stripe-map-file.ts";

export interface ArchiveManifest extends ArchiveKeys {
  readonly stripeSectors: number;
  /** Of the disk. Where the archive does not tell, all its stripes are whole. */
  readonly sizeBytes: number;
  readonly compression: Compression;
  readonly map: StripeMap;
  /** Of `stripe-mapping`, as it is stored. */
  readonly mappingSha256: Uint8Array;
  /** Whether its keys are wrapped. */
  readonly isKeyProtected: boolean;
  /** What the two objects hold beside what is read: readers pass over it, but no writer puts it there. */
  readonly surplus: readonly Surplus[];
}

export interface Surplus {
  readonly key: string;
  /** Such as "5 bytes behind its end". */
  readonly what: string;
}

/** All that is needed of a store. */
export type ArchiveObjects = Pick<ObjectStore, "get" | "name">;

/** Names of the two objects, in the order in which they are written. */
export const METADATA_KEY = "metadata.json";
export const MAPPING_KEY = "stripe-mapping";

/**
 * Reads and checks both objects.
 * @param diskSectors of the disk that the archive is for: a map of more is refused before it takes memory
 * @throws UbiError E_ARCHIVE, E_ARCHIVE_KEY, E_ARCHIVE_TAMPERED, E_STORE; the signal's reason
 */
export async function openArchive(
  store: ArchiveObjects,
  kek: Uint8Array | undefined,
  signal?: AbortSignal,
  diskSectors = Infinity,
): Promise<ArchiveManifest> {
  const metadataBytes = await fetchPart(store, METADATA_KEY, ARCHIVE_METADATA_BYTES_MAX, signal);
  const { surplus: metadataSurplus, ...parameters } = naming(store, METADATA_KEY, () =>
    openMetadata(metadataBytes, kek),
  );
  const { stripeSectors } = parameters;
  const stripesMax = Math.ceil(diskSectors / stripeSectors);
  const mappingBytes = await fetchPart(store, MAPPING_KEY, mappingBytesMax(stripesMax), signal);
  const mappingSha256 = mappingHash(mappingBytes); // before it is deciphered in place
  const mapping = naming(store, MAPPING_KEY, () =>
    decodeMapping(mappingBytes, { stripeSectors, stripesMax, keys: parameters }),
  );
  const surplus = [
    ...metadataSurplus.map((what) => ({ key: METADATA_KEY, what })),
    ...mapping.surplus.map((what) => ({ key: MAPPING_KEY, what })),
  ];
  return { ...parameters, ...mapping, mappingSha256, surplus, isKeyProtected: kek !== undefined };
}

/** By which the bytes of a `stripe-mapping` are known again. */
export function mappingHash(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(new Bun.CryptoHasher("sha256").update(bytes).digest());
}

/** The bytes of `metadata.json`. Keys are wrapped anew. */
export function encodeMetadata(options: {
  readonly stripeSectors: number;
  readonly compression: Compression;
  readonly keys: ArchiveKeys;
  readonly kek: Uint8Array | undefined;
}): Uint8Array {
  const { stripeSectors, compression, keys, kek } = options;
  const encryptionKey = keys.xtsKey === undefined ? undefined : wrapKey(keys.xtsKey, kek);
  const parameters = { stripeSectors, compression, encryptionKey };
  return encodeArchiveMetadata({
    ...parameters,
    hmacKey: wrapKey(keys.hmacKey, kek),
    metadataHmac: metadataTag(parameters, keys.hmacKey),
  });
}

// --- internal ---

/** 90 bytes a stripe: more than 20 million stripes. */
const MAPPING_BYTES_MAX = 2 ** 31;
/** Of the file; what other writers spend more than ours lies in the rest. */
const STRIPE_BYTES_MAX = 100;
const MAPPING_REST_BYTES = 64 * 1024;
const STRIPE_SECTORS_MAX = 2 ** STRIPE_SHIFT_MAX;

function mappingBytesMax(stripesMax: number): number {
  return Math.min(MAPPING_BYTES_MAX, stripesMax * STRIPE_BYTES_MAX + MAPPING_REST_BYTES);
}

type OpenedMetadata = Pick<
  ArchiveManifest,
  "stripeSectors" | "compression" | "xtsKey" | "hmacKey"
> & { readonly surplus: readonly string[] };

async function fetchPart(
  store: ArchiveObjects,
  key: string,
  lengthMax: number,
  signal: AbortSignal | undefined,
): Promise<Uint8Array> {
  const bytes = await store.get(key, { lengthMax, signal });
  if (bytes === undefined) {
    throw new UbiError(
      "E_ARCHIVE",
      key === METADATA_KEY
        ? `there is no archive in ${store.name}: object ${key} not found; name another place`
        : `the archive in ${store.name} is not complete: object ${key} not found; archive the disk again`,
    );
  }
  return bytes;
}

function openMetadata(bytes: Uint8Array, kek: Uint8Array | undefined): OpenedMetadata {
  const metadata = decodeArchiveMetadata(bytes);
  const { stripeSectors, compression, encryptionKey } = metadata;
  const hmacKey = unwrapKey({
    stored: metadata.hmacKey,
    what: "hmac_key",
    keyBytes: HMAC_KEY_BYTES,
    kek,
  });
  checkTag(metadata, hmacKey);
  checkStripeSectors(stripeSectors);
  const xtsKey =
    encryptionKey === undefined
      ? undefined
      : unwrapKey({ stored: encryptionKey, what: "encryption_key", keyBytes: XTS_KEY_BYTES, kek });
  return { stripeSectors, compression, xtsKey, hmacKey, surplus: surplusOf(bytes, metadata) };
}

/** Its tag covers what it says, not how: spaces and fields of other names are read past. */
function surplusOf(bytes: Uint8Array, metadata: ArchiveMetadata): readonly string[] {
  const written = encodeArchiveMetadata(metadata);
  if (Buffer.compare(bytes, written) === 0) {
    return [];
  }
  const hasSame = Buffer.compare(bytes.subarray(0, written.length), written) === 0;
  return [
    hasSame
      ? `${bytes.length - written.length} bytes behind its end`
      : `${bytes.length} bytes, where a writer puts ${written.length} to say the same`,
  ];
}

function checkTag(metadata: ArchiveMetadata, hmacKey: Uint8Array): void {
  const { metadataHmac } = metadata;
  if (metadataHmac.length !== HMAC_TAG_BYTES) {
    throw new UbiError(
      "E_ARCHIVE",
      `its metadata_hmac has invalid length: ${metadataHmac.length} bytes, ${HMAC_TAG_BYTES} are expected`,
    );
  }
  if (!timingSafeEqual(metadataTag(metadata, hmacKey), metadataHmac)) {
    throw new UbiError(
      "E_ARCHIVE_TAMPERED",
      "archive metadata HMAC verification failed: it was changed or damaged; bring it back from a copy",
    );
  }
}

function metadataTag(parameters: ArchiveParameters, hmacKey: Uint8Array): Uint8Array {
  return createHmac("sha256", hmacKey).update(metadataHmacInput(parameters)).digest();
}

function checkStripeSectors(stripeSectors: number): void {
  const isPowerOf2 = Number.isInteger(Math.log2(stripeSectors));
  if (!isPowerOf2 || stripeSectors > STRIPE_SECTORS_MAX) {
    throw new UbiError(
      "E_ARCHIVE",
      `its stripes have ${stripeSectors} sectors; a power of 2 up to ${STRIPE_SECTORS_MAX} is accepted`,
    );
  }
}

/** Puts the name of the object in front of what is wrong with it. */
function naming<T>(store: ArchiveObjects, key: string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (!(error instanceof UbiError)) {
      throw error;
    }
    const message = `cannot read ${key} of the archive in ${store.name}: ${error.message}`;
    throw new UbiError(error.code, message, { cause: error });
  }
}
