/** The metadata that a stripe server tells its clients, and the answer that holds it. */
import { createHash } from "node:crypto";
import type { XtsCipher } from "../disk/cipher.ts";
import type { DataFile } from "../disk/data-file.ts";
import { AssertionError, assert, UbiError } from "../errors.ts";
import { Arena } from "../ffi/arena.ts";
import { copyMemory, mapAnonymous, viewOf } from "../ffi/memory.ts";
import { decodeLegacyMetadata, isLegacyMetadata } from "../formats/legacy-metadata.ts";
import {
  type Metadata,
  type MetadataMedium,
  metadataBytes,
  STRIPE_FLAG,
  stripeBytes,
  stripesOf,
} from "../formats/metadata.ts";
import { encodeMetadata } from "../formats/metadata-codec.ts";
import {
  encodeSizedHead,
  METADATA_BYTES_MAX,
  SIZED_HEAD_BYTES,
  STATUS,
} from "../formats/stripe-protocol.ts";
import { SECTOR_BYTES } from "../formats/virtio-blk.ts";
import { log } from "../log.ts";
import { checkStripeCount, FileMedium, loadMetadata } from "../stripes/metadata-file.ts";
import type { MetadataAnswer } from "./fixed-answers.ts";

/** Stripes of a disk without metadata: 1 MiB. */
const DEFAULT_SHIFT = 11;
const { FETCHED, HAS_SOURCE, CHANGED, WRITTEN } = STRIPE_FLAG;

/** A disk without a metadata file holds all of its stripes. */
export function metadataOfPlainDisk(diskSectors: number): Metadata {
  const stripeCount = stripesOf(diskSectors, DEFAULT_SHIFT);
  const flags = new Uint8Array(stripeCount).fill(FETCHED | WRITTEN | HAS_SOURCE);
  return { stripeShift: DEFAULT_SHIFT, stripeCount, flags };
}

/**
 * Reads the metadata file of a disk, of version 2 or 0.
 * @throws UbiError E_METADATA, E_METADATA_SIZE, E_DISK_IO, E_CIPHER
 */
export function readServedMetadata(
  file: DataFile,
  cipher: XtsCipher | undefined,
  disk: DataFile,
): Metadata {
  const place = { path: file.path, fd: file.fd, sizeBytes: file.geometry.sizeBytes, cipher };
  const legacy = readLegacy(place, disk.sectors);
  const metadata = legacy ?? loadMetadata(place);
  checkStripeCount(file.path, metadata, disk);
  if (stripeBytes(metadata) % disk.blockBytes !== 0) {
    throw new UbiError(
      "E_METADATA_SIZE",
      `the disk ${disk.path} has blocks of ${disk.blockBytes} bytes, which its stripes of ${stripeBytes(metadata)} ` +
        "are not multiples of; copy it to another medium",
    );
  }
  const { flags, ...header } = metadata;
  return {
    stripeShift: header.stripeShift,
    stripeCount: header.stripeCount,
    flags: knownFlags(flags),
  };
}

/** What clients know of: what changed since an archive is nobody else's business. */
function knownFlags(flags: Uint8Array): Uint8Array {
  for (let stripe = 0; stripe < flags.length; stripe += 1) {
    flags[stripe] = (flags[stripe] ?? 0) & ~CHANGED;
  }
  return flags;
}

/** Where nothing was tracked, each stripe outside of the source may hold what a guest wrote: it is data. */
export function markUntracked(flags: Uint8Array): void {
  for (let stripe = 0; stripe < flags.length; stripe += 1) {
    const flag = flags[stripe] ?? 0;
    flags[stripe] = (flag & HAS_SOURCE) === 0 ? flag | WRITTEN : flag;
  }
}

/** Stripes that a source holds; nothing else is served. */
export function metadataOfSource(
  shape: { readonly stripeSectors: number; readonly sectors: number },
  has: (stripe: number) => boolean,
): Metadata {
  const stripeShift = Math.log2(shape.stripeSectors);
  assert(Number.isInteger(stripeShift), "a stripe is a power of two");
  const stripeCount = stripesOf(shape.sectors, stripeShift);
  const flags = new Uint8Array(stripeCount);
  for (let stripe = 0; stripe < stripeCount; stripe += 1) {
    flags[stripe] = has(stripe) ? HAS_SOURCE : 0;
  }
  return { stripeShift, stripeCount, flags };
}

/** Made once: every client is sent the same memory, which stays to the end of the process. */
export function metadataAnswer(metadata: Metadata): MetadataAnswer {
  const sizeBytes = metadataBytes(metadata.stripeCount);
  if (sizeBytes > METADATA_BYTES_MAX) {
    const limit = { bytes: sizeBytes, accepted: METADATA_BYTES_MAX };
    log.warn("the metadata is longer than clients accept; use larger stripes", limit);
  }
  const lengthBytes = SIZED_HEAD_BYTES + sizeBytes;
  const address = mapAnonymous(lengthBytes);
  encodeSizedHead(new Uint8Array(viewOf(address, SIZED_HEAD_BYTES)), 0, sizeBytes);
  using medium = new AnswerMedium(address + SIZED_HEAD_BYTES, sizeBytes);
  encodeMetadata(metadata, medium);
  return { status: STATUS.OK, address, lengthBytes, digest: medium.digest() };
}

// --- internal ---

const WINDOW_BYTES = 128 * SECTOR_BYTES;

function readLegacy(
  place: ConstructorParameters<typeof FileMedium>[0],
  diskSectors: number,
): Metadata | undefined {
  using medium = new FileMedium(place);
  if (medium.sizeBytes < SECTOR_BYTES) {
    return undefined;
  }
  medium.read(0, 1);
  if (!isLegacyMetadata(medium.buffer)) {
    return undefined;
  }
  try {
    return decodeLegacyMetadata(medium, diskSectors);
  } catch (error) {
    if (error instanceof UbiError && error.code === "E_METADATA") {
      const message = `cannot use metadata ${place.path} of version 0: ${error.message}`;
      throw new UbiError("E_METADATA", message, { cause: error });
    }
    throw error;
  }
}

/** Memory without a view over all of it, which would be too large. */
class AnswerMedium implements MetadataMedium, Disposable {
  readonly sizeBytes: number;
  readonly buffer: Uint8Array;
  readonly #address: number;
  readonly #arena = new Arena(WINDOW_BYTES);
  readonly #window: number;

  constructor(address: number, sizeBytes: number) {
    this.#address = address;
    this.sizeBytes = sizeBytes;
    const { view, address: window } = this.#arena.bytes(WINDOW_BYTES);
    this.buffer = view;
    this.#window = window;
  }

  read(): never {
    throw new AssertionError("an answer is only written");
  }

  write(sector: number, sectorCount: number): void {
    const target = this.#address + sector * SECTOR_BYTES;
    copyMemory(target, this.#window, sectorCount * SECTOR_BYTES);
  }

  sync(): void {}

  digest(): Uint8Array {
    const hash = createHash("sha256");
    for (let offset = 0; offset < this.sizeBytes; offset += WINDOW_BYTES) {
      const length = Math.min(WINDOW_BYTES, this.sizeBytes - offset);
      copyMemory(this.#window, this.#address + offset, length);
      hash.update(this.buffer.subarray(0, length));
    }
    return Uint8Array.from(hash.digest());
  }

  [Symbol.dispose](): void {
    this.#arena[Symbol.dispose]();
  }
}
