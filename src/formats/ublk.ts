/**
 * The structures of the kernel's ublk driver (linux/ublk_cmd.h), little endian. Commands to the driver travel in
 * the last bytes of an io_uring entry: control commands in one of 128 bytes, those of a queue in one of 64.
 *
 *   control command   0 device u32 | 4 queue u16 | 6 length u16 | 8 address u64 | 16 data u64 | 24..32
 *   device info       0 queues u16 | 2 depth u16 | 4 state u16 | 8 I/O bytes u32 | 12 device u32 | 16 pid i32
 *                     24 flags u64 | 32 flags of the server u64 | 40..64
 *   parameters        0 length u32 | 4 types u32 | 8 basic | 40 discard | 60 devt | 76 zoned | 108 DMA | 116..120
 *   I/O descriptor    0 operation, flags u32 | 4 sectors u32 | 8 sector u64 | 16 address u64
 *   I/O command       0 queue u16 | 2 tag u16 | 4 result i32 | 8 address u64
 */

/** Where the driver is asked. */
export const CONTROL_COMMAND_BYTES = 32;
const IO_COMMAND_BYTES = 16;
export const DEVICE_INFO_BYTES = 64;
const PARAMETERS_BYTES = 120;
export const DESCRIPTOR_BYTES = 24;
export const FEATURES_BYTES = 8;

const UBLK_QUEUE_DEPTH_MAX = 4096;
export const UBLK_IO_BYTES_MAX = 32 * 2 ** 20;
/** The device id that lets the driver choose one. */
export const ANY_DEVICE = 0xffff_ffff;

/** As ioctl(2) numbers: direction (1 write, 2 read), size, type 'u', number. */
function commandCode(direction: number, sizeBytes: number, number: number): number {
  return ((direction << 30) | (sizeBytes << 16) | (0x75 << 8) | number) >>> 0;
}

const reading = (number: number) => commandCode(2, CONTROL_COMMAND_BYTES, number);
const changing = (number: number) => commandCode(3, CONTROL_COMMAND_BYTES, number);

export const CONTROL_CODE = {
  getDeviceInfo: reading(0x02),
  addDevice: changing(0x04),
  deleteDevice: changing(0x05),
  startDevice: changing(0x06),
  stopDevice: changing(0x07),
  setParameters: changing(0x08),
  getParameters: reading(0x09),
  startRecovery: changing(0x10),
  endRecovery: changing(0x11),
  getFeatures: reading(0x13),
  deleteDeviceAsync: reading(0x14),
  updateSize: changing(0x15),
} as const;

export const IO_CODE = {
  fetch: commandCode(3, IO_COMMAND_BYTES, 0x20),
  commitAndFetch: commandCode(3, IO_COMMAND_BYTES, 0x21),
} as const;

/** What a fetch ends with when its device was stopped: -ENODEV. */
export const FETCH_ABORTED = -19;

/** Features of the driver and flags of a device; all known ones have bits below 32. */
export const FEATURE = {
  userRecovery: 2 ** 3,
  userRecoveryReissue: 2 ** 4,
  ioctlEncoding: 2 ** 6,
  updateSize: 2 ** 10,
  autoBufferRegistration: 2 ** 11,
} as const;

const DEVICE_STATES = ["dead", "live", "quiesced", "fail_io"] as const;
type DeviceState = (typeof DEVICE_STATES)[number] | "unknown";

/** A device as the driver describes it. */
export interface DeviceInfo {
  readonly queues: number;
  readonly depth: number;
  readonly state: DeviceState;
  readonly ioBytesMax: number;
  readonly id: number;
  /** Of its server, -1 when there is none. */
  readonly pid: number;
  readonly flags: number;
  /** Two words that the driver keeps for the server. */
  readonly serverLow: number;
  readonly serverHigh: number;
}

export function encodeDeviceInfo(info: DeviceInfo): Uint8Array {
  const bytes = new Uint8Array(DEVICE_INFO_BYTES);
  const view = new DataView(bytes.buffer);
  const states: readonly string[] = DEVICE_STATES;
  const state = states.indexOf(info.state);
  view.setUint16(0, info.queues, true);
  view.setUint16(2, info.depth, true);
  view.setUint16(4, state < 0 ? 0xffff : state, true);
  view.setUint32(8, info.ioBytesMax, true);
  view.setUint32(12, info.id, true);
  view.setInt32(16, info.pid, true);
  view.setUint32(24, info.flags, true);
  view.setUint32(32, info.serverLow, true);
  view.setUint32(36, info.serverHigh, true);
  return bytes;
}

/** @param bytes DEVICE_INFO_BYTES, of the driver */
export function decodeDeviceInfo(bytes: Uint8Array): DeviceInfo {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return {
    queues: view.getUint16(0, true),
    depth: view.getUint16(2, true),
    state: DEVICE_STATES[view.getUint16(4, true)] ?? "unknown",
    ioBytesMax: view.getUint32(8, true),
    id: view.getUint32(12, true),
    pid: view.getInt32(16, true),
    flags: view.getUint32(24, true),
    serverLow: view.getUint32(32, true),
    serverHigh: view.getUint32(36, true),
  };
}

/** The features of a driver, FEATURES_BYTES. */
export function decodeFeatures(bytes: Uint8Array): number {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength).getUint32(0, true);
}

const PARAMETER_TYPE = { basic: 1, discard: 2, dmaAlign: 16 } as const;

export const ATTRIBUTE = { readOnly: 1, volatileCache: 4, fua: 8 } as const;

/** The block device as the kernel is to see it. */
export interface DeviceParameters {
  readonly attributes: number;
  readonly logicalBlockShift: number;
  readonly physicalBlockShift: number;
  readonly optimalIoShift: number;
  readonly minimalIoShift: number;
  readonly ioSectorsMax: number;
  readonly sectors: number;
  /** DISCARD and WRITE_ZEROES; 0 for what is not offered. */
  readonly discardGranularityBytes: number;
  readonly discardSectorsMax: number;
  readonly writeZeroesSectorsMax: number;
  /** Addresses of requests are multiples of this; undefined where the kernel copies them. */
  readonly memoryAlignBytes: number | undefined;
}

export function encodeParameters(parameters: DeviceParameters): Uint8Array {
  const bytes = new Uint8Array(PARAMETERS_BYTES);
  const view = new DataView(bytes.buffer);
  const { memoryAlignBytes, discardSectorsMax, writeZeroesSectorsMax } = parameters;
  const hasRanges = discardSectorsMax > 0 || writeZeroesSectorsMax > 0;
  const discard = hasRanges ? PARAMETER_TYPE.discard : 0;
  const align = memoryAlignBytes === undefined ? 0 : PARAMETER_TYPE.dmaAlign;
  view.setUint32(0, PARAMETERS_BYTES, true);
  view.setUint32(4, PARAMETER_TYPE.basic | discard | align, true);
  view.setUint32(8, parameters.attributes, true);
  view.setUint8(12, parameters.logicalBlockShift);
  view.setUint8(13, parameters.physicalBlockShift);
  view.setUint8(14, parameters.optimalIoShift);
  view.setUint8(15, parameters.minimalIoShift);
  view.setUint32(16, parameters.ioSectorsMax, true);
  view.setBigUint64(24, BigInt(parameters.sectors), true);
  if (hasRanges) {
    view.setUint32(44, parameters.discardGranularityBytes, true);
    view.setUint32(48, discardSectorsMax, true);
    view.setUint32(52, writeZeroesSectorsMax, true);
    view.setUint16(56, 1, true); // ranges a request: the driver knows no more
  }
  if (memoryAlignBytes !== undefined) {
    view.setUint32(108, memoryAlignBytes - 1, true);
  }
  return bytes;
}

/** What to ask the parameters of a device with: the driver fills in the rest. */
export function parametersQuery(): Uint8Array {
  const bytes = new Uint8Array(PARAMETERS_BYTES);
  new DataView(bytes.buffer).setUint32(0, PARAMETERS_BYTES, true);
  return bytes;
}

/** What a device was started with, as far as it matters to whoever takes it over. */
export function decodeParameters(
  bytes: Uint8Array,
): Pick<DeviceParameters, "attributes" | "sectors"> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return {
    attributes: view.getUint32(8, true),
    sectors: Number(view.getBigUint64(24, true)),
  };
}

/** A control command, for the end of its io_uring entry. */
export function encodeControlCommand(command: {
  readonly device: number;
  readonly lengthBytes: number;
  readonly address: number;
  readonly data: number;
}): Uint8Array {
  const bytes = new Uint8Array(CONTROL_COMMAND_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, command.device, true);
  view.setUint16(4, 0xffff, true); // no queue
  view.setUint16(6, command.lengthBytes, true);
  view.setBigUint64(8, BigInt(command.address), true);
  view.setBigUint64(16, BigInt(command.data), true);
  return bytes;
}

/** Operations of an I/O descriptor: the low byte of its first word. */
export const UBLK_OPERATION = { read: 0, write: 1, flush: 2, discard: 3, writeZeroes: 5 } as const;
export const UBLK_FLAG_FUA = 1 << 13;
/** Of WRITE_ZEROES: the blocks stay allocated. */
export const UBLK_FLAG_KEEP = 1 << 15;

const PAGE_BYTES = 4096;

/** Where the I/O descriptors of a queue are mapped in the character device. */
export function descriptorsOffset(queue: number): number {
  return queue * roundUp(UBLK_QUEUE_DEPTH_MAX * DESCRIPTOR_BYTES, PAGE_BYTES);
}

export function descriptorsBytes(depth: number): number {
  return roundUp(depth * DESCRIPTOR_BYTES, PAGE_BYTES);
}

// --- internal ---

function roundUp(value: number, unit: number): number {
  return Math.ceil(value / unit) * unit;
}
