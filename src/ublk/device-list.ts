/**
 * The ublk devices of this program, with and without a server. A device carries a mark of ours and one of its
 * disk in two words that the driver keeps for servers.
 */
import { UbiError } from "../errors.ts";
import { type DeviceInfo, FEATURE } from "../formats/ublk.ts";
import { log } from "../log.ts";
import type { UblkControl } from "./control.ts";
import { blockPath, deviceIds, isAbandoned } from "./device-node.ts";

/** "UBIB" */
const OWN_MARK = 0x42494255;

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

/** The two words of a device over the disk with `diskMark`. */
export function serverWords(diskMark: number): Pick<DeviceInfo, "serverLow" | "serverHigh"> {
  return { serverLow: diskMark, serverHigh: OWN_MARK };
}

export async function listDevices(control: UblkControl): Promise<readonly ListedDevice[]> {
  return (await ownDevices(control)).map(listed);
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

/**
 * A device that a server with this disk can take over.
 * @throws UbiError E_UBLK_DEVICE when it is not there, not recoverable, still served, or of another disk
 */
export async function recoverableDevice(
  control: UblkControl,
  id: number,
  disk: { readonly mark: number; readonly sectors: number },
): Promise<DeviceInfo> {
  const info = await ownDevice(control, id);
  const refuse = (why: string) => new UbiError("E_UBLK_DEVICE", `ublk device ${id} ${why}`);
  if ((info.flags & FEATURE.userRecovery) === 0) {
    throw refuse("was not made with --recoverable; delete it with --delete");
  }
  if (info.serverLow !== disk.mark) {
    throw refuse("belongs to another disk than device.data_path of this config");
  }
  const sectors = await control.sectors(id);
  if (sectors !== disk.sectors) {
    throw refuse(`has ${sectors} sectors, the disk has ${disk.sectors}`);
  }
  return info;
}

/**
 * Clears away what earlier servers of a disk left, which the caller has locked: none of them lives.
 * @throws UbiError E_UBLK_DEVICE when one of them holds requests that wait for a recovery
 */
export async function clearOrphans(control: UblkControl, diskMark: number): Promise<void> {
  for (const info of await ownDevices(control)) {
    if (info.serverLow !== diskMark || !isAbandoned(info.id)) {
      continue;
    }
    if (info.state === "dead") {
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

async function ownDevices(control: UblkControl): Promise<readonly DeviceInfo[]> {
  const devices: DeviceInfo[] = [];
  for (const id of deviceIds()) {
    const info = await control.info(id);
    if (info?.serverHigh === OWN_MARK) {
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
  if (info.serverHigh !== OWN_MARK) {
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
