/**
 * Messages of the vhost-user protocol ("Vhost-user Protocol" of the QEMU project's documentation): a
 * header, then a payload whose shape follows from the request. All fields are little endian.
 *
 *     0        4        8        12
 *     | request| flags  | size   | payload of `size` bytes ...
 *
 * Descriptors travel beside the bytes (SCM_RIGHTS) and are the transport's business.
 */
import { UbiError } from "../errors.ts";
import { readNumber64, viewBytes, writeNumber64 } from "./little-endian.ts";

export const HEADER_BYTES = 12;
/** Largest payload that is accepted; the largest legal one is a SET_CONFIG. */
export const PAYLOAD_BYTES_MAX = 4096;
/** Regions of one SET_MEM_TABLE: the protocol's own bound without CONFIGURE_MEM_SLOTS is 8. */
export const MEMORY_REGIONS_MAX = 32;
const MEMORY_REGION_BYTES = 32;
/** Regions that ADD_MEM_REG can build up. */
export const MEMORY_SLOTS_MAX = 509;
/** What every JSON object with a key begins with, `{"`, as the lower half of a request number; none is as large. */
const JSON_START = 0x227b;
const JSON_RECEIVED = "JSON came, which belongs to rpc_socket, not to vhost_socket";
/** The device configuration space ends here. */
const CONFIG_END_MAX = 0x1000;

/** What a front end asks of a back end. */
export const REQUEST = {
  GET_FEATURES: 1,
  SET_FEATURES: 2,
  SET_OWNER: 3,
  RESET_OWNER: 4,
  SET_MEM_TABLE: 5,
  SET_LOG_BASE: 6,
  SET_LOG_FD: 7,
  SET_VRING_NUM: 8,
  SET_VRING_ADDR: 9,
  SET_VRING_BASE: 10,
  GET_VRING_BASE: 11,
  SET_VRING_KICK: 12,
  SET_VRING_CALL: 13,
  SET_VRING_ERR: 14,
  GET_PROTOCOL_FEATURES: 15,
  SET_PROTOCOL_FEATURES: 16,
  GET_QUEUE_NUM: 17,
  SET_VRING_ENABLE: 18,
  SEND_RARP: 19,
  NET_SET_MTU: 20,
  SET_BACKEND_REQ_FD: 21,
  IOTLB_MSG: 22,
  SET_VRING_ENDIAN: 23,
  GET_CONFIG: 24,
  SET_CONFIG: 25,
  CREATE_CRYPTO_SESSION: 26,
  CLOSE_CRYPTO_SESSION: 27,
  POSTCOPY_ADVISE: 28,
  POSTCOPY_LISTEN: 29,
  POSTCOPY_END: 30,
  GET_INFLIGHT_FD: 31,
  SET_INFLIGHT_FD: 32,
  GPU_SET_SOCKET: 33,
  RESET_DEVICE: 34,
  VRING_KICK: 35,
  GET_MAX_MEM_SLOTS: 36,
  ADD_MEM_REG: 37,
  REM_MEM_REG: 38,
  SET_STATUS: 39,
  GET_STATUS: 40,
  GET_SHARED_OBJECT: 41,
  SET_DEVICE_STATE_FD: 42,
  CHECK_DEVICE_STATE: 43,
} as const;

/** What a back end asks of a front end, on the channel of SET_BACKEND_REQ_FD. */
export const BACKEND_REQUEST = { CONFIG_CHANGE_MSG: 2 } as const;

/** Bit numbers of GET_PROTOCOL_FEATURES. */
export const PROTOCOL_FEATURE = {
  MQ: 0,
  LOG_SHMFD: 1,
  RARP: 2,
  REPLY_ACK: 3,
  NET_MTU: 4,
  BACKEND_REQ: 5,
  CROSS_ENDIAN: 6,
  CRYPTO_SESSION: 7,
  PAGEFAULT: 8,
  CONFIG: 9,
  BACKEND_SEND_FD: 10,
  HOST_NOTIFIER: 11,
  INFLIGHT_SHMFD: 12,
  RESET_DEVICE: 13,
  INBAND_NOTIFICATIONS: 14,
  CONFIGURE_MEM_SLOTS: 15,
  STATUS: 16,
  XEN_MMAP: 17,
  SHARED_OBJECT: 18,
  DEVICE_STATE: 19,
} as const;

const FLAG_VERSION_MASK = 3;
const FLAG_VERSION = 1;
export const FLAG_REPLY = 4;
export const FLAG_NEED_REPLY = 8;

/** Of SET_VRING_KICK, _CALL and _ERR: the ring's index in bits 0-7, and this one when no descriptor came. */
export const VRING_INDEX_MASK = 0xff;
export const VRING_NO_DESCRIPTOR = 0x100;
/** Of SET_VRING_ADDR: what is written to the used ring is to be logged. */
export const VRING_LOG = 1;

export interface MessageHeader {
  readonly request: number;
  readonly flags: number;
  readonly sizeBytes: number;
}

/** SET_VRING_NUM, _BASE, _ENABLE and GET_VRING_BASE: a ring and one value. */
export interface VringState {
  readonly index: number;
  readonly value: number;
}

/** SET_VRING_ADDR: addresses in the front end's own space. */
export interface VringAddress {
  readonly index: number;
  readonly flags: number;
  readonly descriptors: number;
  readonly used: number;
  readonly available: number;
  readonly log: number;
}

export interface MemoryRegion {
  readonly guestAddress: number;
  readonly sizeBytes: number;
  readonly userAddress: number;
  readonly mmapOffset: number;
}

/** GET_CONFIG and SET_CONFIG: a part of the device configuration space. */
export interface ConfigPart {
  readonly offset: number;
  readonly flags: number;
  readonly bytes: Uint8Array;
}

/** SET_LOG_BASE: where in its file the log of dirty pages lies. */
export interface LogArea {
  readonly sizeBytes: number;
  readonly offsetBytes: number;
}

/** GET_INFLIGHT_FD and SET_INFLIGHT_FD. */
export interface Inflight {
  readonly mmapSizeBytes: number;
  readonly mmapOffset: number;
  readonly queueCount: number;
  readonly queueSize: number;
}

/** A mask with the given bits set. */
export function bitMask(...bits: readonly number[]): bigint {
  return bits.reduce((mask, bit) => mask | (1n << BigInt(bit)), 0n);
}

export function hasBit(mask: bigint, bit: number): boolean {
  return ((mask >> BigInt(bit)) & 1n) === 1n;
}

/** The request's name, for messages. */
export function requestName(request: number): string {
  const entry = Object.entries(REQUEST).find(([, number]) => number === request);
  return entry?.[0] ?? `request ${request}`;
}

export function encodeHeader(target: Uint8Array, header: MessageHeader): void {
  const view = viewBytes(target);
  view.setUint32(0, header.request, true);
  view.setUint32(4, header.flags, true);
  view.setUint32(8, header.sizeBytes, true);
}

/** @throws UbiError E_PROTOCOL on another version, or a payload above the limit */
export function decodeHeader(bytes: Uint8Array): MessageHeader {
  checkSize("message header", bytes, HEADER_BYTES);
  const view = viewBytes(bytes);
  const header = {
    request: view.getUint32(0, true),
    flags: view.getUint32(4, true),
    sizeBytes: view.getUint32(8, true),
  };
  if ((header.request & 0xffff) === JSON_START) {
    throw new UbiError("E_PROTOCOL", JSON_RECEIVED);
  }
  const name = requestName(header.request);
  if ((header.flags & FLAG_VERSION_MASK) !== FLAG_VERSION) {
    const version = header.flags & FLAG_VERSION_MASK;
    throw new UbiError("E_PROTOCOL", `${name}: version ${version} of the protocol is unknown`);
  }
  if (header.sizeBytes > PAYLOAD_BYTES_MAX) {
    const size = `${header.sizeBytes} bytes`;
    throw new UbiError("E_PROTOCOL", `${name}: a payload of ${size} exceeds ${PAYLOAD_BYTES_MAX}`);
  }
  return header;
}

/** A message as it goes over the socket. */
export function encodeMessage(request: number, flags: number, payload: Uint8Array): Uint8Array {
  const message = new Uint8Array(HEADER_BYTES + payload.length);
  encodeHeader(message, { request, flags: FLAG_VERSION | flags, sizeBytes: payload.length });
  message.set(payload, HEADER_BYTES);
  return message;
}

export function encodeU64(value: bigint): Uint8Array {
  const bytes = new Uint8Array(8);
  viewBytes(bytes).setBigUint64(0, value, true);
  return bytes;
}

/** @throws UbiError E_PROTOCOL */
export function decodeU64(payload: Uint8Array): bigint {
  checkSize("64-bit value", payload, 8);
  return viewBytes(payload).getBigUint64(0, true);
}

export function encodeVringState(state: VringState): Uint8Array {
  const bytes = new Uint8Array(8);
  const view = viewBytes(bytes);
  view.setUint32(0, state.index, true);
  view.setUint32(4, state.value, true);
  return bytes;
}

/** @throws UbiError E_PROTOCOL */
export function decodeVringState(payload: Uint8Array): VringState {
  checkSize("ring state", payload, 8);
  const view = viewBytes(payload);
  return { index: view.getUint32(0, true), value: view.getUint32(4, true) };
}

export function encodeVringAddress(address: VringAddress): Uint8Array {
  const bytes = new Uint8Array(40);
  const view = viewBytes(bytes);
  view.setUint32(0, address.index, true);
  view.setUint32(4, address.flags, true);
  writeNumber64(view, 8, address.descriptors);
  writeNumber64(view, 16, address.used);
  writeNumber64(view, 24, address.available);
  writeNumber64(view, 32, address.log);
  return bytes;
}

/** @throws UbiError E_PROTOCOL */
export function decodeVringAddress(payload: Uint8Array): VringAddress {
  checkSize("ring address", payload, 40);
  const view = viewBytes(payload);
  return {
    index: view.getUint32(0, true),
    flags: view.getUint32(4, true),
    descriptors: readNumber64(view, 8, "descriptor table address"),
    used: readNumber64(view, 16, "used ring address"),
    available: readNumber64(view, 24, "available ring address"),
    log: readNumber64(view, 32, "log address"),
  };
}

/** The payload of SET_MEM_TABLE. */
export function encodeMemoryTable(regions: readonly MemoryRegion[]): Uint8Array {
  const bytes = new Uint8Array(8 + regions.length * MEMORY_REGION_BYTES);
  const view = viewBytes(bytes);
  view.setUint32(0, regions.length, true);
  regions.forEach((region, i) => {
    writeRegion(view, 8 + i * MEMORY_REGION_BYTES, region);
  });
  return bytes;
}

/** @throws UbiError E_PROTOCOL */
export function decodeMemoryTable(payload: Uint8Array): readonly MemoryRegion[] {
  if (payload.length < 8) {
    throw new UbiError("E_PROTOCOL", `memory table: ${payload.length} bytes instead of 8 or more`);
  }
  const view = viewBytes(payload);
  const count = view.getUint32(0, true);
  if (count > MEMORY_REGIONS_MAX) {
    throw new UbiError("E_PROTOCOL", `memory table: ${count} regions exceed ${MEMORY_REGIONS_MAX}`);
  }
  checkSize("memory table", payload, 8 + count * MEMORY_REGION_BYTES);
  return Array.from({ length: count }, (_, i) => readRegion(view, 8 + i * MEMORY_REGION_BYTES));
}

/** The payload of ADD_MEM_REG and REM_MEM_REG. */
export function encodeMemoryRegion(region: MemoryRegion): Uint8Array {
  const bytes = new Uint8Array(8 + MEMORY_REGION_BYTES);
  writeRegion(viewBytes(bytes), 8, region);
  return bytes;
}

/** @throws UbiError E_PROTOCOL */
export function decodeMemoryRegion(payload: Uint8Array): MemoryRegion {
  checkSize("memory region", payload, 8 + MEMORY_REGION_BYTES);
  return readRegion(viewBytes(payload), 8);
}

export function encodeConfigPart(part: ConfigPart): Uint8Array {
  const bytes = new Uint8Array(12 + part.bytes.length);
  const view = viewBytes(bytes);
  view.setUint32(0, part.offset, true);
  view.setUint32(4, part.bytes.length, true);
  view.setUint32(8, part.flags, true);
  bytes.set(part.bytes, 12);
  return bytes;
}

/** `bytes` is a view of the payload. @throws UbiError E_PROTOCOL */
export function decodeConfigPart(payload: Uint8Array): ConfigPart {
  if (payload.length < 12) {
    throw new UbiError("E_PROTOCOL", `config space: ${payload.length} bytes instead of 12 or more`);
  }
  const view = viewBytes(payload);
  const offset = view.getUint32(0, true);
  const size = view.getUint32(4, true);
  if (size === 0 || offset + size > CONFIG_END_MAX) {
    throw new UbiError("E_PROTOCOL", `config space: no ${size} bytes at offset ${offset}`);
  }
  checkSize("config space", payload, 12 + size);
  return { offset, flags: view.getUint32(8, true), bytes: payload.subarray(12) };
}

export function encodeLogArea(area: LogArea): Uint8Array {
  const bytes = new Uint8Array(16);
  const view = viewBytes(bytes);
  writeNumber64(view, 0, area.sizeBytes);
  writeNumber64(view, 8, area.offsetBytes);
  return bytes;
}

/** @throws UbiError E_PROTOCOL */
export function decodeLogArea(payload: Uint8Array): LogArea {
  checkSize("log of dirty pages", payload, 16);
  const view = viewBytes(payload);
  return {
    sizeBytes: readNumber64(view, 0, "log size"),
    offsetBytes: readNumber64(view, 8, "log offset"),
  };
}

/** 24 bytes: both known front ends count the padding behind the last field. */
export function encodeInflight(inflight: Inflight): Uint8Array {
  const bytes = new Uint8Array(24);
  const view = viewBytes(bytes);
  writeNumber64(view, 0, inflight.mmapSizeBytes);
  writeNumber64(view, 8, inflight.mmapOffset);
  view.setUint16(16, inflight.queueCount, true);
  view.setUint16(18, inflight.queueSize, true);
  return bytes;
}

/** Accepts the fields (20 bytes) with or without padding (24). @throws UbiError E_PROTOCOL */
export function decodeInflight(payload: Uint8Array): Inflight {
  checkSize("inflight description", payload, payload.length === 20 ? 20 : 24);
  const view = viewBytes(payload);
  return {
    mmapSizeBytes: readNumber64(view, 0, "inflight size"),
    mmapOffset: readNumber64(view, 8, "inflight offset"),
    queueCount: view.getUint16(16, true),
    queueSize: view.getUint16(18, true),
  };
}

// --- internal ---

function checkSize(what: string, payload: Uint8Array, sizeBytes: number): void {
  if (payload.length !== sizeBytes) {
    throw new UbiError("E_PROTOCOL", `${what}: ${payload.length} bytes instead of ${sizeBytes}`);
  }
}

function writeRegion(view: DataView, offset: number, region: MemoryRegion): void {
  writeNumber64(view, offset, region.guestAddress);
  writeNumber64(view, offset + 8, region.sizeBytes);
  writeNumber64(view, offset + 16, region.userAddress);
  writeNumber64(view, offset + 24, region.mmapOffset);
}

function readRegion(view: DataView, offset: number): MemoryRegion {
  return {
    guestAddress: readNumber64(view, offset, "guest address"),
    sizeBytes: readNumber64(view, offset + 8, "region size"),
    userAddress: readNumber64(view, offset + 16, "user address"),
    mmapOffset: readNumber64(view, offset + 24, "region file offset"),
  };
}
