/**
 * The stripe protocol: a client asks, the server answers in the order of the requests. A client may send
 * more requests before it has the answers. Numbers are little-endian.
 *
 *     request                                         answer when all is well
 *     00 metadata                                     00, u64 size, metadata file in the clear (metadata.ts)
 *     01 read, u64 stripe                             00, u64 size, that stripe: always a whole one
 *     02 hello                                        00, u32 version = 1
 *     10 features                                     00, u32 FEATURE bits
 *     11 read sparse, u64 stripe                      as 01, or the one byte 10: the stripe is all zeros
 *     12 metadata digest                              00, SHA-256 of the metadata file: 32 bytes
 *
 * Any other answer is one byte, its STATUS, and only ff ends the connection. A server that does not know
 * an opcode answers fe and takes one byte; so `features` can be asked of any server, and the other opcodes
 * from 10 on are sent only to one that announced them. Servers may be used without hello.
 */
import { assert } from "../errors.ts";
import { readNumber64, viewBytes, writeNumber64 } from "./little-endian.ts";
import { SECTOR_BYTES } from "./virtio-blk.ts";

export const OPCODE = {
  METADATA: 0x00,
  READ: 0x01,
  HELLO: 0x02,
  FEATURES: 0x10,
  READ_SPARSE: 0x11,
  METADATA_DIGEST: 0x12,
} as const;

export const STATUS = {
  OK: 0x00,
  OUT_OF_RANGE: 0x01,
  NO_DATA: 0x02,
  /** Not fetched yet, and the server has no source to get it from. */
  NOT_FETCHED: 0x03,
  /** Only to READ_SPARSE: the stripe is all zeros. */
  ZERO: 0x10,
  UNKNOWN_OPCODE: 0xfe,
  SERVER_ERROR: 0xff,
} as const;

export const FEATURE = { READ_SPARSE: 1, METADATA_DIGEST: 2 } as const;

export const PROTOCOL_VERSION = 1;
/** The longest request: an opcode and a stripe. */
export const REQUEST_BYTES_MAX = 9;
/** Status and size, before the data of metadata and stripes. */
export const SIZED_HEAD_BYTES = 9;
const VERSION_ANSWER_BYTES = 5;
const FEATURES_ANSWER_BYTES = 5;
export const DIGEST_BYTES = 32;
const DIGEST_ANSWER_BYTES = 1 + DIGEST_BYTES;
export const METADATA_BYTES_MIN = SECTOR_BYTES;
export const METADATA_BYTES_MAX = 64 * 2 ** 20;

/** Bytes of a request that begins with `opcode`; an unknown one is taken as a single byte. */
export function requestBytes(opcode: number): number {
  return opcode === OPCODE.READ || opcode === OPCODE.READ_SPARSE ? REQUEST_BYTES_MAX : 1;
}

/** The stripe that a whole read request at `offset` names. Inexact from 2^53 on, where no stripe is. */
export function requestedStripe(bytes: Uint8Array, offset: number): number {
  const view = viewBytes(bytes);
  return view.getUint32(offset + 5, true) * 2 ** 32 + view.getUint32(offset + 1, true);
}

/** Puts a request without a stripe at `offset`; returns its length. */
export function encodeRequest(target: Uint8Array, offset: number, opcode: number): number {
  assert(requestBytes(opcode) === 1, "a read names its stripe");
  target[offset] = opcode;
  return 1;
}

/** Puts a read of `stripe` at `offset`; returns its length. */
export function encodeRead(options: {
  readonly target: Uint8Array;
  readonly offset: number;
  readonly opcode: typeof OPCODE.READ | typeof OPCODE.READ_SPARSE;
  readonly stripe: number;
}): number {
  const { target, offset, opcode, stripe } = options;
  target[offset] = opcode;
  writeNumber64(viewBytes(target), offset + 1, stripe);
  return REQUEST_BYTES_MAX;
}

/** The answer to hello. Returns its length, as all that follow do. */
export function encodeVersion(target: Uint8Array, offset: number): number {
  target[offset] = STATUS.OK;
  viewBytes(target).setUint32(offset + 1, PROTOCOL_VERSION, true);
  return VERSION_ANSWER_BYTES;
}

export function encodeFeatures(target: Uint8Array, offset: number, features: number): number {
  target[offset] = STATUS.OK;
  viewBytes(target).setUint32(offset + 1, features, true);
  return FEATURES_ANSWER_BYTES;
}

/** What precedes the data of metadata and of a stripe. */
export function encodeSizedHead(target: Uint8Array, offset: number, sizeBytes: number): number {
  target[offset] = STATUS.OK;
  writeNumber64(viewBytes(target), offset + 1, sizeBytes);
  return SIZED_HEAD_BYTES;
}

export function encodeDigest(target: Uint8Array, offset: number, digest: Uint8Array): number {
  assert(digest.length === DIGEST_BYTES, "a digest is a SHA-256");
  target[offset] = STATUS.OK;
  target.set(digest, offset + 1);
  return DIGEST_ANSWER_BYTES;
}

/** Bytes of an answer of status OK before its data, if it has any. */
export function answerHeadBytes(opcode: number): number {
  switch (opcode) {
    case OPCODE.METADATA:
    case OPCODE.READ:
    case OPCODE.READ_SPARSE:
      return SIZED_HEAD_BYTES;
    case OPCODE.METADATA_DIGEST:
      return DIGEST_ANSWER_BYTES;
    default:
      return VERSION_ANSWER_BYTES;
  }
}

/** The 32-bit value of an answer to hello or features at `offset`. */
export function decodeWord(bytes: Uint8Array, offset: number): number {
  return viewBytes(bytes).getUint32(offset + 1, true);
}

/** The size in the head of an answer at `offset`. @throws UbiError E_PROTOCOL from 2^53 on */
export function decodeSize(bytes: Uint8Array, offset: number): number {
  return readNumber64(viewBytes(bytes), offset + 1, "the size of an answer");
}

/** A status in words, for messages. */
export function statusText(status: number): string {
  const text = STATUS_TEXTS[status];
  const hex = `0x${status.toString(16).padStart(2, "0")}`;
  return text === undefined ? `status ${hex}` : `status ${hex} (${text})`;
}

// --- internal ---

const STATUS_TEXTS: Readonly<Record<number, string>> = {
  [STATUS.OK]: "ok",
  [STATUS.OUT_OF_RANGE]: "no such stripe",
  [STATUS.NO_DATA]: "the stripe holds no data",
  [STATUS.NOT_FETCHED]: "the server has not fetched the stripe and has no source for it",
  [STATUS.ZERO]: "all zeros",
  [STATUS.UNKNOWN_OPCODE]: "unknown opcode",
  [STATUS.SERVER_ERROR]: "the server failed",
};
