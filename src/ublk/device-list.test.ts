import { expect, test } from "bun:test";
import { CONTROL_CODE, type DeviceInfo, encodeDeviceInfo, FEATURE } from "../formats/ublk.ts";
import { UblkControl } from "./control.ts";
import type { ControlChannel, ControlCommand } from "./control-channel.ts";
import { deleteOrphan, recoverableDevice, serverWords } from "./device-list.ts";

const ENODEV = -19;
const DISK = { mark: 0x1234, sectors: 2048 } as const;
/** Larger than any id on this machine: no file of that name is in /dev. */
const ID = 900_001;

const LOST: DeviceInfo = {
  queues: 2,
  depth: 64,
  state: "quiesced",
  ioBytesMax: 2 ** 20,
  id: ID,
  pid: -1,
  flags: FEATURE.userRecovery | FEATURE.userRecoveryReissue,
  ...serverWords(DISK.mark),
};

/** A driver with one device, of 2048 sectors. */
class OneDevice implements ControlChannel {
  readonly asked: number[] = [];
  readonly #info: DeviceInfo;

  constructor(info: DeviceInfo) {
    this.#info = info;
  }

  async run({ code, device, buffer }: ControlCommand): Promise<number> {
    this.asked.push(code);
    if (device !== this.#info.id) {
      return ENODEV;
    }
    if (code === CONTROL_CODE.getDeviceInfo) {
      buffer?.set(encodeDeviceInfo(this.#info));
    } else if (code === CONTROL_CODE.getParameters && buffer !== undefined) {
      new DataView(buffer.buffer).setUint32(24, DISK.sectors, true);
    }
    return 0;
  }

  [Symbol.dispose](): void {
    // It holds nothing.
  }
}

test("a device that lost its server is given to one with the same disk", async () => {
  using control = new UblkControl(new OneDevice(LOST));
  expect(await recoverableDevice(control, ID, DISK)).toEqual(LOST);
});

test.each([
  ["another disk", LOST, { ...DISK, mark: 7 }, "belongs to another disk"],
  ["a disk of another size", LOST, { ...DISK, sectors: 9 }, "has 2048 sectors, the disk has 9"],
  ["a device that is not recoverable", { ...LOST, flags: 0 }, DISK, "--recoverable"],
  ["a device of another program", { ...LOST, serverHigh: 0 }, DISK, "another program"],
])("%s is not taken over", async (_, info, disk, message) => {
  using control = new UblkControl(new OneDevice(info));
  expect(recoverableDevice(control, ID, disk)).rejects.toMatchObject({
    code: "E_UBLK_DEVICE",
    message: expect.stringContaining(message),
  });
});

test("an orphan is deleted; a device that is not there, or of another program, is not", async () => {
  const driver = new OneDevice(LOST);
  using control = new UblkControl(driver);
  await deleteOrphan(control, ID);
  expect(driver.asked.at(-1)).toBe(CONTROL_CODE.deleteDeviceAsync);
  expect(deleteOrphan(control, ID + 1)).rejects.toThrow("there is no ublk device");
  const foreign = new OneDevice({ ...LOST, serverHigh: 1 });
  using other = new UblkControl(foreign);
  expect(deleteOrphan(other, ID)).rejects.toThrow("another program");
  expect(foreign.asked).not.toContain(CONTROL_CODE.deleteDeviceAsync);
});
