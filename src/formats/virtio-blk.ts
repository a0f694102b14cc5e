/**
 * The virtio block device (virtio 1.2, section 5.2): feature bits, requests and the configuration space.
 *
 * A request is a chain of descriptors: a header, data, and one status byte.
 *
 *     header  0: type u32 | 4: reserved u32 | 8: sector u64        (16 bytes, the device reads)
 *     segment 0: sector u64 | 8: sectors u32 | 12: flags u32       (data of DISCARD and WRITE_ZEROES)
 */
import { UbiError } from "../errors.ts";
import { readNumber64, viewBytes, writeNumber64 } from "./little-endian.ts";

export const SECTOR_BYTES = 512;

/** Bit numbers of the feature word; those from 24 on belong to every device or to the transport. */
export const FEATURE = {
  BLK_SIZE_MAX: 1,
  BLK_SEG_MAX: 2,
  BLK_GEOMETRY: 4,
  BLK_RO: 5,
  BLK_BLK_SIZE: 6,
  BLK_FLUSH: 9,
  BLK_TOPOLOGY: 10,
  BLK_CONFIG_WCE: 11,
  BLK_MQ: 12,
  BLK_DISCARD: 13,
  BLK_WRITE_ZEROES: 14,
  BLK_LIFETIME: 15,
  BLK_SECURE_ERASE: 16,
  NOTIFY_ON_EMPTY: 24,
  LOG_ALL: 26,
  ANY_LAYOUT: 27,
  RING_INDIRECT_DESC: 28,
  RING_EVENT_IDX: 29,
  VHOST_USER_PROTOCOL_FEATURES: 30,
  VERSION_1: 32,
  ACCESS_PLATFORM: 33,
  RING_PACKED: 34,
  IN_ORDER: 35,
  ORDER_PLATFORM: 36,
  RING_RESET: 40,
} as const;

export const REQUEST_TYPE = {
  IN: 0,
  OUT: 1,
  FLUSH: 4,
  GET_ID: 8,
  GET_LIFETIME: 10,
  DISCARD: 11,
  WRITE_ZEROES: 13,
  SECURE_ERASE: 14,
} as const;

export const STATUS = { OK: 0, IOERR: 1, UNSUPPORTED: 2 } as const;

export const REQUEST_HEADER_BYTES = 16;
/** Byte offsets in a request header. */
const REQUEST_HEADER = { TYPE: 0, SECTOR: 8 } as const;
/** What GET_ID writes: the id, padded with zeros, without a terminator when it fills the field. */
export const DEVICE_ID_BYTES = 20;

export const SEGMENT_BYTES = 16;
/** Flag of a WRITE_ZEROES segment: the blocks may be freed. */
export const SEGMENT_UNMAP = 1;

/** One range of DISCARD or WRITE_ZEROES. */
export interface RangeSegment {
  readonly sector: number;
  readonly sectorCount: number;
  readonly flags: number;
}

export const CONFIG_BYTES = 60;
/** Where the configuration space keeps the one byte that a driver may write. */
export const CONFIG_WRITEBACK_OFFSET = 32;

/** The configuration space; counts and sizes as the fields of the specification. */
export interface BlockConfig {
  readonly capacitySectors: number;
  readonly segmentSizeMax: number;
  readonly segmentCountMax: number;
  /** Logical block, bytes. */
  readonly blockSize: number;
  /** log2 of logical blocks in a physical one. */
  readonly physicalBlockExponent: number;
  readonly alignmentOffset: number;
  /** In logical blocks, as is the next. */
  readonly ioSizeMin: number;
  readonly ioSizeOptimal: number;
  /** 1: writes are durable after a flush; 0: each when it completes. */
  readonly writeback: number;
  readonly queueCount: number;
  readonly discardSectorsMax: number;
  readonly discardSegmentsMax: number;
  readonly discardSectorAlignment: number;
  readonly writeZeroesSectorsMax: number;
  readonly writeZeroesSegmentsMax: number;
  readonly writeZeroesMayUnmap: number;
}

/** Bytes 16-19 (geometry), 33 and 57-59 are zeros. */
export function encodeBlockConfig(config: BlockConfig): Uint8Array {
  const bytes = new Uint8Array(CONFIG_BYTES);
  const view = viewBytes(bytes);
  writeNumber64(view, 0, config.capacitySectors);
  view.setUint32(8, config.segmentSizeMax, true);
  view.setUint32(12, config.segmentCountMax, true);
  view.setUint32(20, config.blockSize, true);
  view.setUint8(24, config.physicalBlockExponent);
  view.setUint8(25, config.alignmentOffset);
  view.setUint16(26, config.ioSizeMin, true);
  view.setUint32(28, config.ioSizeOptimal, true);
  view.setUint8(CONFIG_WRITEBACK_OFFSET, config.writeback);
  view.setUint16(34, config.queueCount, true);
  view.setUint32(36, config.discardSectorsMax, true);
  view.setUint32(40, config.discardSegmentsMax, true);
  view.setUint32(44, config.discardSectorAlignment, true);
  view.setUint32(48, config.writeZeroesSectorsMax, true);
  view.setUint32(52, config.writeZeroesSegmentsMax, true);
  view.setUint8(56, config.writeZeroesMayUnmap);
  return bytes;
}

/** @throws UbiError E_PROTOCOL when it is too short or the capacity is absurd */
export function decodeBlockConfig(bytes: Uint8Array): BlockConfig {
  if (bytes.length < CONFIG_BYTES) {
    const sizes = `${bytes.length} bytes instead of ${CONFIG_BYTES}`;
    throw new UbiError("E_PROTOCOL", `block device configuration: ${sizes}`);
  }
  const view = viewBytes(bytes);
  return {
    capacitySectors: readNumber64(view, 0, "capacity"),
    segmentSizeMax: view.getUint32(8, true),
    segmentCountMax: view.getUint32(12, true),
    blockSize: view.getUint32(20, true),
    physicalBlockExponent: view.getUint8(24),
    alignmentOffset: view.getUint8(25),
    ioSizeMin: view.getUint16(26, true),
    ioSizeOptimal: view.getUint32(28, true),
    writeback: view.getUint8(CONFIG_WRITEBACK_OFFSET),
    queueCount: view.getUint16(34, true),
    discardSectorsMax: view.getUint32(36, true),
    discardSegmentsMax: view.getUint32(40, true),
    discardSectorAlignment: view.getUint32(44, true),
    writeZeroesSectorsMax: view.getUint32(48, true),
    writeZeroesSegmentsMax: view.getUint32(52, true),
    writeZeroesMayUnmap: view.getUint8(56),
  };
}

/** The header of a request, for drivers. */
export function encodeRequestHeader(type: number, sector: number): Uint8Array {
  const bytes = new Uint8Array(REQUEST_HEADER_BYTES);
  const view = viewBytes(bytes);
  view.setUint32(REQUEST_HEADER.TYPE, type, true);
  writeNumber64(view, REQUEST_HEADER.SECTOR, sector);
  return bytes;
}

export function encodeRangeSegment(segment: RangeSegment): Uint8Array {
  const bytes = new Uint8Array(SEGMENT_BYTES);
  const view = viewBytes(bytes);
  writeNumber64(view, 0, segment.sector);
  view.setUint32(8, segment.sectorCount, true);
  view.setUint32(12, segment.flags, true);
  return bytes;
}

/** @throws UbiError E_PROTOCOL when it is too short or starts at sector 2^53 or beyond */
export function decodeRangeSegment(bytes: Uint8Array): RangeSegment {
  if (bytes.length < SEGMENT_BYTES) {
    throw new UbiError("E_PROTOCOL", `range: ${bytes.length} bytes instead of ${SEGMENT_BYTES}`);
  }
  const view = viewBytes(bytes);
  return {
    sector: readNumber64(view, 0, "sector"),
    sectorCount: view.getUint32(8, true),
    flags: view.getUint32(12, true),
  };
}
