/**
 * The ublk devices of this program, with and without a server. A device carries a mark of ours and two of its disk
 * in words that the driver keeps for servers.
 *
 *   low word   the file of the disk                     high word   "UB" | content of the disk, 16 bits
 */
import { UbiError } from "../errors.ts";
import { ATTRIBUTE, type DeviceInfo, type DeviceParameters, FEATURE } from "../formats/ublk.ts";
import { log } from "../log.ts";
import type { UblkControl } from "./control.ts";
import { blockPath, deviceIds, isAbandoned } from "./device-node.ts";

/** "UB" */
const OWN_MARK = 0x4255;

/** By which a disk is known again. */
export interface DiskMarks {
  /** Where it lies, 32 bits. */
  readonly file: number;
  /** What its bytes mean, 16 bits. */
  readonly content: number;
}

/** A device as `--list` shows it. */
export interface ListedDevice {
  readonly id: number;
  readonly path: string;
  readonly state: string;
  /** Of its server; undefined when it has none. */
  readonly pid: number | undefined;
  readonly queues: number;
  readonly queue_size: number;
  readonly max_io_bytes: number;
  readonly recoverable: boolean;
  readonly zero_copy: boolean;
  /** Nobody serves it: it waits to be recovered or deleted. */
  readonly orphan: boolean;
}

/** The two words of a device over a disk. */
export function serverWords(marks: DiskMarks): Pick<DeviceInfo, "serverLow" | "serverHigh"> {
  return { serverLow: marks.file, serverHigh: OWN_MARK * 0x1_0000 + marks.content };
}

export async function listDevices(control: UblkControl): Promise<readonly ListedDevice[]> {
  return (await ownDevices(control, deviceIds())).map(listed);
}

/**
 * Deletes an orphan; requests that wait for its recovery fail.
 * @throws UbiError E_UBLK_DEVICE when there is none, or it is served
 */
export async function deleteOrphan(control: UblkControl, id: number): Promise<void> {
  const info = await ownDevice(control, id);
  const { orphan, pid } = listed(info);
  if (!orphan) {
    const who = pid === undefined ? "its server" : `process ${pid}`;
    throw new UbiError("E_UBLK_DEVICE", `ublk device ${id} is served: end ${who} with SIGTERM`);
  }
  await control.remove(id);
}

/** @throws UbiError E_UBLK_DEVICE when there is no such device, or another process serves it */
export async function expectServer(control: UblkControl, id: number, pid: number): Promise<void> {
  const info = await ownDevice(control, id);
  const isStarted = info.pid > 0;
  if (isStarted && info.pid !== pid) {
    throw new UbiError("E_UBLK_DEVICE", `ublk device ${id} is served by process ${info.pid}`);
  }
}

/**
 * A device that a server with this disk can take over. The disk may be larger: it was to grow, and the server died
 * before the device did; `resize` tells it then.
 * @throws UbiError E_UBLK_DEVICE when it is not there, not recoverable, still served, or of another disk
 */
export async function recoverableDevice(
  control: UblkControl,
  id: number,
  disk: { readonly marks: DiskMarks } & Pick<DeviceParameters, "attributes" | "sectors">,
): Promise<DeviceInfo> {
  const info = await ownDevice(control, id);
  const refuse = (why: string) => new UbiError("E_UBLK_DEVICE", `ublk device ${id} ${why}`);
  if ((info.flags & FEATURE.userRecovery) === 0) {
    throw refuse("was not made with --recoverable; delete it with --delete");
  }
  const words = serverWords(disk.marks);
  if (info.serverLow !== words.serverLow) {
    throw refuse("belongs to another disk than device.data_path of this config");
  }
  if (info.serverHigh !== words.serverHigh) {
    throw refuse("was served with another key, or other metadata, than this config names");
  }
  const { sectors, attributes } = await control.parameters(id);
  if (sectors > disk.sectors) {
    throw refuse(`has ${sectors} sectors, the disk has ${disk.sectors}`);
  }
  const difference = attributeDifference(attributes, disk.attributes);
  if (difference !== undefined) {
    throw refuse(difference);
  }
  return info;
}

/**
 * Clears away what earlier servers of a disk left, which the caller has locked: none of them lives.
 * @throws UbiError E_UBLK_DEVICE when one of them holds requests that wait for a recovery
 */
export async function clearOrphans(
  control: UblkControl,
  marks: DiskMarks,
  ids: readonly number[] = deviceIds(),
): Promise<void> {
  for (const info of await ownDevices(control, ids)) {
    if (info.serverLow !== marks.file || !isAbandoned(info.id)) {
      continue;
    }
    // One that is not recoverable may still be dying: the deletion waits for that.
    if (info.state === "dead" || (info.flags & FEATURE.userRecovery) === 0) {
      await control.remove(info.id);
      log.info("deleted a device whose server had died", { id: info.id });
    } else {
      const choice = `take it over with --recover ${info.id} or end it with --delete ${info.id}`;
      const message = `ublk device ${info.id} of this disk waits for a server: ${choice}`;
      throw new UbiError("E_UBLK_DEVICE", message);
    }
  }
}

// --- internal ---

function isOwn({ serverHigh }: DeviceInfo): boolean {
  return Math.floor(serverHigh / 0x1_0000) === OWN_MARK;
}

/** Why a disk cannot stand behind a device that the kernel knows to have other attributes. */
function attributeDifference(device: number, disk: number): string | undefined {
  if ((device & ATTRIBUTE.readOnly) !== (disk & ATTRIBUTE.readOnly)) {
    return "was made with another device.read_only than this config has";
  }
  // The kernel sends no flushes to a device without a cache: what it wrote has to be durable.
  if ((disk & ATTRIBUTE.volatileCache) !== 0 && (device & ATTRIBUTE.volatileCache) === 0) {
    return "was made with tuning.write_through, which this config has not";
  }
  return undefined;
}

async function ownDevices(
  control: UblkControl,
  ids: readonly number[],
): Promise<readonly DeviceInfo[]> {
  const devices: DeviceInfo[] = [];
  for (const id of ids) {
    const info = await control.info(id);
    if (info !== undefined && isOwn(info)) {
      devices.push(info);
    }
  }
  return devices;
}

async function ownDevice(control: UblkControl, id: number): Promise<DeviceInfo> {
  const info = await control.info(id);
  if (info === undefined) {
    throw new UbiError("E_UBLK_DEVICE", `there is no ublk device ${id}; see ubiblk ublk --list`);
  }
  if (!isOwn(info)) {
    throw new UbiError("E_UBLK_DEVICE", `ublk device ${id} belongs to another program`);
  }
  return info;
}

function listed(info: DeviceInfo): ListedDevice {
  const orphan = isAbandoned(info.id);
  return {
    id: info.id,
    path: blockPath(info.id),
    state: info.state,
    pid: orphan || info.pid <= 0 ? undefined : info.pid,
    queues: info.queues,
    queue_size: info.depth,
    max_io_bytes: info.ioBytesMax,
    recoverable: (info.flags & FEATURE.userRecovery) !== 0,
    zero_copy: (info.flags & FEATURE.autoBufferRegistration) !== 0,
    orphan,
  };
}
