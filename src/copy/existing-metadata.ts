/**
 * What is in the place of new metadata, and whether it may go. A file that says nothing of its disk goes without
 * a word, as scripts expect; what a guest's data hangs on, and what cannot be read, goes only when that is asked for.
 */
import { assertNever, UbiError } from "../errors.ts";
import { Arena } from "../ffi/arena.ts";
import { readFileAt } from "../ffi/file.ts";
import { countStripes, type Metadata, STRIPE_FLAG } from "../formats/metadata.ts";
import { decodeMetadata, isUnfinished } from "../formats/metadata-codec.ts";
import { SECTOR_BYTES } from "../formats/virtio-blk.ts";
import { FileMedium, type MetadataFile } from "../stripes/metadata-file.ts";
import { runsInShort } from "./stripe-runs.ts";

export type ExistingMetadata =
  /** Nothing but zeros, or what an init-metadata that was cut short left. */
  | { readonly kind: "blank" }
  | { readonly kind: "valid"; readonly metadata: Metadata }
  | { readonly kind: "invalid"; readonly reason: string };

/** @throws UbiError E_DISK_IO, E_CIPHER */
export function inspectMetadata(file: MetadataFile): ExistingMetadata {
  if (isZero(file) || isCutShort(file)) {
    return { kind: "blank" };
  }
  try {
    return { kind: "valid", metadata: read(file) };
  } catch (error) {
    if (!(error instanceof UbiError && error.code === "E_METADATA")) {
      throw error;
    }
    return { kind: "invalid", reason: invalidReason(file, error) };
  }
}

/** What would be lost with it, as a clause; undefined when that is nothing. */
export function lossOf(existing: ExistingMetadata): string | undefined {
  switch (existing.kind) {
    case "blank":
      return undefined;
    case "invalid":
      return `its content, which cannot be read (${existing.reason})`;
    case "valid":
      return lossOfMetadata(existing.metadata.flags);
    default:
      return assertNever(existing);
  }
}

// --- internal ---

const PIECE_BYTES = 2 ** 20;

/** Fails without the name of the file, which is told already. */
function read(file: MetadataFile): Metadata {
  using medium = new FileMedium(file);
  return decodeMetadata(medium);
}

function isZero(file: MetadataFile): boolean {
  using arena = new Arena(PIECE_BYTES);
  const { address, view } = arena.bytes(PIECE_BYTES);
  for (let offset = 0; offset < file.sizeBytes; offset += PIECE_BYTES) {
    const lengthBytes = Math.min(PIECE_BYTES, file.sizeBytes - offset);
    if (readFileAt(file.fd, offset, address, lengthBytes) < 0) {
      return false; // reading it as metadata tells why
    }
    if (!view.subarray(0, lengthBytes).every((byte) => byte === 0)) {
      return false;
    }
  }
  return true;
}

function isCutShort(file: MetadataFile): boolean {
  if (file.sizeBytes < SECTOR_BYTES) {
    return false;
  }
  using medium = new FileMedium(file);
  medium.read(0, 1);
  return isUnfinished(medium.buffer.subarray(0, SECTOR_BYTES));
}

function invalidReason(file: MetadataFile, error: UbiError): string {
  const isPlain = file.cipher !== undefined && isReadable({ ...file, cipher: undefined });
  return isPlain ? "it is metadata of a disk without encryption" : error.message;
}

function isReadable(file: MetadataFile): boolean {
  try {
    read(file);
    return true;
  } catch (error) {
    if (error instanceof UbiError && error.code === "E_METADATA") {
      return false;
    }
    throw error;
  }
}

function lossOfMetadata(flags: Uint8Array): string | undefined {
  const { fetched, written, reserved } = countStripes(flags);
  const losses: string[] = [];
  if (fetched > 0) {
    losses.push(`${fetched} fetched (${runsInShort(flags, STRIPE_FLAG.FETCHED)})`);
  }
  if (written > 0) {
    losses.push(`${written} written (${runsInShort(flags, STRIPE_FLAG.WRITTEN)})`);
  }
  if (reserved > 0) {
    losses.push(`${reserved} with flags of a later version`);
  }
  return losses.length === 0 ? undefined : `the state of its stripes: ${losses.join(", ")}`;
}
