/**
 * The journal of a run: what was asked of the disk and what was acknowledged, in order. Little endian.
 *
 *     header, 64 bytes                          record, 16 bytes
 *      0 "UBIJRNL1"                              0 kind u32
 *      8 seed u32                                4 block u32 (of a flush: its number)
 *     12 block size u32, bytes                   8 generation u32 (of a flush: 0)
 *     16 offset u64, bytes                      12 check u32
 *     24 block count u32
 *     28 zeros
 *
 * A record is appended before its request is sent, or as soon as its end was seen. A torn or damaged tail
 * (the machine went down) is cut off where the first check fails.
 */
import { UbiError } from "../errors.ts";
import { readNumber64, viewBytes, writeNumber64 } from "../formats/little-endian.ts";
import { mix } from "./random.ts";

export const JOURNAL_HEADER_BYTES = 64;
export const RECORD_BYTES = 16;
export const RECORD_WORDS = RECORD_BYTES / 4;

export const RECORD = {
  WRITE_SENT: 1,
  WRITE_ACKNOWLEDGED: 2,
  FLUSH_SENT: 3,
  FLUSH_ACKNOWLEDGED: 4,
} as const;

export interface JournalHeader {
  readonly seed: number;
  readonly blockBytes: number;
  readonly offsetBytes: number;
  readonly blockCount: number;
}

const MAGIC = "UBIJRNL1";

export function encodeJournalHeader(header: JournalHeader): Uint8Array {
  const bytes = new Uint8Array(JOURNAL_HEADER_BYTES);
  bytes.set(Buffer.from(MAGIC));
  const view = viewBytes(bytes);
  view.setUint32(8, header.seed, true);
  view.setUint32(12, header.blockBytes, true);
  writeNumber64(view, 16, header.offsetBytes);
  view.setUint32(24, header.blockCount, true);
  return bytes;
}

/** @throws UbiError E_BENCH, E_PROTOCOL when it is no journal */
export function decodeJournalHeader(bytes: Uint8Array, path: string): JournalHeader {
  const isJournal =
    bytes.length >= JOURNAL_HEADER_BYTES &&
    Buffer.from(bytes.subarray(0, 8)).toString("latin1") === MAGIC;
  if (!isJournal) {
    throw new UbiError("E_BENCH", `${path} is not a journal of this program`);
  }
  const view = viewBytes(bytes);
  return {
    seed: view.getUint32(8, true),
    blockBytes: view.getUint32(12, true),
    offsetBytes: readNumber64(view, 16, "journal offset"),
    blockCount: view.getUint32(24, true),
  };
}

/** The last word of a record. */
export function recordCheck(kind: number, block: number, generation: number): number {
  return mix(mix(mix(kind) ^ block) ^ generation);
}
