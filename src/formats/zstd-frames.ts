/**
 * Walks the frames of zstd data (RFC 8878) without decoding them: decoders differ in what they say of data that
 * is cut short, and how much memory they take for what a frame only claims to hold.
 *
 *   frame     magic 4 | descriptor 1 | window 0-1 | dictionary 0-4 | content size 0-8 | blocks ... | checksum 0 or 4
 *   block     last 1 bit, type 2, size 21 | content: `size` bytes, or 1 where a byte is repeated
 *   skippable magic 4 | size 4 | content
 */
import { viewBytes } from "./little-endian.ts";

export interface ZstdFrames {
  /** Skippable ones are not counted. */
  readonly frameCount: number;
  /** What the frames say that they hold; undefined when one does not say it. */
  readonly contentBytes: number | undefined;
}

/** @returns undefined when the bytes are not whole frames, at least one, and nothing else */
export function walkZstdFrames(bytes: Uint8Array): ZstdFrames | undefined {
  const view = viewBytes(bytes);
  let frameCount = 0;
  let contentBytes: number | undefined = 0;
  let at = 0;
  while (at < bytes.length) {
    const magic = at + 8 <= bytes.length ? view.getUint32(at, true) : 0;
    if ((magic & SKIPPABLE_MASK) === SKIPPABLE_MAGIC) {
      at += 8 + view.getUint32(at + 4, true);
      continue;
    }
    const header = magic === MAGIC ? readHeader(view, at) : undefined;
    const end = header === undefined ? undefined : endOfBlocks(view, header.blocksAt);
    if (header === undefined || end === undefined) {
      return undefined;
    }
    frameCount += 1;
    const { contentBytes: more } = header;
    contentBytes =
      contentBytes === undefined || more === undefined ? undefined : contentBytes + more;
    at = end + (header.hasChecksum ? CHECKSUM_BYTES : 0);
  }
  return at === bytes.length && frameCount > 0 ? { frameCount, contentBytes } : undefined;
}

// --- internal ---

const MAGIC = 0xfd2fb528;
const SKIPPABLE_MAGIC = 0x184d2a50;
const SKIPPABLE_MASK = 0xfffffff0 | 0;
const CHECKSUM_BYTES = 4;
const BLOCK_HEAD_BYTES = 3;
const REPEATED = 1;
const RESERVED = 3;

interface FrameHeader {
  readonly blocksAt: number;
  readonly contentBytes: number | undefined;
  readonly hasChecksum: boolean;
}

/** @param at of the magic number, with 8 bytes there at least */
function readHeader(view: DataView, at: number): FrameHeader | undefined {
  const descriptor = view.getUint8(at + 4);
  const isSingleSegment = (descriptor & 0x20) !== 0;
  const sizeFlag = descriptor >> 6;
  const dictionaryBytes = [0, 1, 2, 4][descriptor & 3] ?? 0;
  const sizeBytes = sizeFlag === 0 ? (isSingleSegment ? 1 : 0) : 1 << sizeFlag;
  const sizeAt = at + 5 + (isSingleSegment ? 0 : 1) + dictionaryBytes;
  const blocksAt = sizeAt + sizeBytes;
  if (blocksAt > view.byteLength) {
    return undefined;
  }
  const contentBytes = readContentSize(view, sizeAt, sizeBytes);
  return { blocksAt, contentBytes, hasChecksum: (descriptor & 4) !== 0 };
}

function readContentSize(view: DataView, at: number, sizeBytes: number): number | undefined {
  switch (sizeBytes) {
    case 0:
      return undefined;
    case 1:
      return view.getUint8(at);
    case 2:
      return view.getUint16(at, true) + 256;
    case 4:
      return view.getUint32(at, true);
    default:
      return Number(view.getBigUint64(at, true));
  }
}

/** Behind the last block of a frame, perhaps beyond all bytes; undefined when a block is cut or of no known type. */
function endOfBlocks(view: DataView, blocksAt: number): number | undefined {
  let at = blocksAt;
  while (at + BLOCK_HEAD_BYTES <= view.byteLength) {
    const head = view.getUint16(at, true) | (view.getUint8(at + 2) << 16);
    const type = (head >> 1) & 3;
    if (type === RESERVED) {
      return undefined;
    }
    at += BLOCK_HEAD_BYTES + (type === REPEATED ? 1 : head >> 3);
    if ((head & 1) !== 0) {
      return at;
    }
  }
  return undefined;
}
