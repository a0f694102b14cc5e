/**
 * What a stripe server tells about its disk: metadata, as in a metadata file. Two connections must tell of the
 * same disk: the same stripes, each with the same WRITTEN and HAS_SOURCE. FETCHED is left out, since a server
 * may fetch meanwhile.
 */
import { AssertionError, errorText, UbiError } from "../errors.ts";
import { numberText } from "../formats/little-endian.ts";
import {
  type Metadata,
  type MetadataMedium,
  STRIPE_FLAG,
  stripeBytes,
} from "../formats/metadata.ts";
import { decodeMetadata } from "../formats/metadata-codec.ts";
import { METADATA_BYTES_MAX, METADATA_BYTES_MIN } from "../formats/stripe-protocol.ts";
import { SECTOR_BYTES } from "../formats/virtio-blk.ts";

/** What is kept of a disk to know it again; cloneable. */
export interface RemoteIdentity {
  readonly stripeShift: number;
  readonly stripeCount: number;
  /** SHA-256 of the flags that must stay. */
  readonly contentDigest: string;
  /** SHA-256 of all the metadata as it was sent. */
  readonly metadataDigest: string;
}

export interface RemoteDisk extends Metadata {
  readonly identity: RemoteIdentity;
}

/** @throws UbiError E_REMOTE when a server announces metadata that is too short or too long */
export function checkMetadataSize(name: string, sizeBytes: number): void {
  const isShort = sizeBytes < METADATA_BYTES_MIN;
  if (isShort || sizeBytes > METADATA_BYTES_MAX) {
    const limit = isShort
      ? `is too small: at least ${METADATA_BYTES_MIN} bytes`
      : `exceeds maximum: at most ${METADATA_BYTES_MAX} bytes`;
    throw new UbiError(
      "E_REMOTE",
      `${name} sends metadata of ${numberText(sizeBytes)} bytes, which ${limit} are accepted; check what listens there`,
    );
  }
}

/** @throws UbiError E_REMOTE when it is no metadata */
export function decodeRemoteDisk(name: string, bytes: Uint8Array): RemoteDisk {
  try {
    const metadata = decodeMetadata(new MemoryMedium(bytes));
    const { stripeShift, stripeCount, flags } = metadata;
    const contentDigest = digestOfContent(flags);
    const identity = { stripeShift, stripeCount, contentDigest, metadataDigest: sha256(bytes) };
    return { ...metadata, identity };
  } catch (error) {
    const [reason] = errorText(error).split("; "); // what follows is advice for a file of one's own
    const advice = "look after the disk where the server runs";
    const message = `${name} sent metadata that cannot be read: ${reason}; ${advice}`;
    throw error instanceof UbiError ? new UbiError("E_REMOTE", message, { cause: error }) : error;
  }
}

/** What differs between two disks, in words; nothing when they are the same. */
export function differenceOf(known: RemoteIdentity, found: RemoteIdentity): string | undefined {
  if (known.stripeShift !== found.stripeShift) {
    const sizes = `${stripeBytes(known)} to ${stripeBytes(found)} bytes`;
    return `the size of its stripes changed from ${sizes}`;
  }
  if (known.stripeCount !== found.stripeCount) {
    return `the number of its stripes changed from ${known.stripeCount} to ${found.stripeCount}`;
  }
  return known.contentDigest === found.contentDigest ? undefined : "other stripes hold data";
}

/** Whether the server has data for a stripe of these flags. */
export function isHeld(flags: number): boolean {
  return (flags & CONTENT) !== 0;
}

export function hexOf(digest: Uint8Array): string {
  return Buffer.from(digest).toString("hex");
}

// --- internal ---

const CONTENT = STRIPE_FLAG.WRITTEN | STRIPE_FLAG.HAS_SOURCE;
const WINDOW_BYTES = 128 * SECTOR_BYTES;

function sha256(bytes: Uint8Array): string {
  return new Bun.CryptoHasher("sha256").update(bytes).digest("hex");
}

function digestOfContent(flags: Uint8Array): string {
  const hasher = new Bun.CryptoHasher("sha256");
  const window = new Uint8Array(WINDOW_BYTES);
  for (let first = 0; first < flags.length; first += WINDOW_BYTES) {
    const count = Math.min(WINDOW_BYTES, flags.length - first);
    for (let i = 0; i < count; i += 1) {
      window[i] = (flags[first + i] ?? 0) & CONTENT;
    }
    hasher.update(window.subarray(0, count));
  }
  return hasher.digest("hex");
}

/** Metadata that lies in memory. */
class MemoryMedium implements MetadataMedium {
  readonly sizeBytes: number;
  readonly buffer = new Uint8Array(WINDOW_BYTES);
  readonly #bytes: Uint8Array;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.sizeBytes = bytes.length;
  }

  read(sector: number, sectorCount: number): void {
    const first = sector * SECTOR_BYTES;
    this.buffer.set(this.#bytes.subarray(first, first + sectorCount * SECTOR_BYTES));
  }

  write(): never {
    throw new AssertionError("what a server sent is not written");
  }

  sync(): never {
    throw new AssertionError("what a server sent is not written");
  }
}
