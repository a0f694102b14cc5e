import { expect, test } from "bun:test";
import {
  ATTRIBUTE,
  CONTROL_CODE,
  type DeviceInfo,
  encodeDeviceInfo,
  FEATURE,
} from "../formats/ublk.ts";
import { UblkControl } from "./control.ts";
import type { ControlChannel, ControlCommand } from "./control-channel.ts";
import {
  clearOrphans,
  deleteOrphan,
  expectServer,
  recoverableDevice,
  serverWords,
} from "./device-list.ts";

const ENODEV = -19;
const MARKS = { file: 0x1234, content: 0x5678 } as const;
const CACHE = ATTRIBUTE.volatileCache | ATTRIBUTE.fua;
const DISK = { marks: MARKS, sectors: 2048, attributes: CACHE } as const;
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
  ...serverWords(MARKS),
};

/** A driver with one device, of 2048 sectors. */
class OneDevice implements ControlChannel {
  readonly asked: number[] = [];
  readonly #info: DeviceInfo;
  readonly #attributes: number;

  constructor(info: DeviceInfo, attributes: number = CACHE) {
    this.#info = info;
    this.#attributes = attributes;
  }

  async run({ code, device, buffer }: ControlCommand): Promise<number> {
    this.asked.push(code);
    if (device !== this.#info.id) {
      return ENODEV;
    }
    if (code === CONTROL_CODE.getDeviceInfo) {
      buffer?.set(encodeDeviceInfo(this.#info));
    } else if (code === CONTROL_CODE.getParameters && buffer !== undefined) {
      const view = new DataView(buffer.buffer);
      view.setUint32(8, this.#attributes, true);
      view.setUint32(24, DISK.sectors, true);
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

test("a disk that is larger by now takes it over: the device grows when it is told", async () => {
  using control = new UblkControl(new OneDevice(LOST));
  expect(await recoverableDevice(control, ID, { ...DISK, sectors: 4096 })).toEqual(LOST);
});

test.each([
  ["another disk", LOST, { ...DISK, marks: { ...MARKS, file: 7 } }, "belongs to another disk"],
  ["another key", LOST, { ...DISK, marks: { ...MARKS, content: 7 } }, "with another key"],
  ["a disk that is smaller", LOST, { ...DISK, sectors: 9 }, "has 2048 sectors, the disk has 9"],
  ["a device that is not recoverable", { ...LOST, flags: 0 }, DISK, "--recoverable"],
  ["a device of another program", { ...LOST, serverHigh: 0 }, DISK, "another program"],
])("%s is not taken over", async (_, info, disk, message) => {
  using control = new UblkControl(new OneDevice(info));
  expect(recoverableDevice(control, ID, disk)).rejects.toMatchObject({
    code: "E_UBLK_DEVICE",
    message: expect.stringContaining(message),
  });
});

test.each([
  ["without a cache, a disk that needs flushes", 0, CACHE, "tuning.write_through"],
  ["that is written, a disk that is not", CACHE, ATTRIBUTE.readOnly, "device.read_only"],
  ["that is read only, a disk that is written", ATTRIBUTE.readOnly, CACHE, "device.read_only"],
])("a device %s does not take over", async (_, attributes, diskAttributes, message) => {
  using control = new UblkControl(new OneDevice(LOST, attributes));
  const disk = { ...DISK, attributes: diskAttributes };
  expect(recoverableDevice(control, ID, disk)).rejects.toThrow(message);
});

test("a device with a cache is given to a disk that needs none", async () => {
  using control = new UblkControl(new OneDevice(LOST));
  expect(await recoverableDevice(control, ID, { ...DISK, attributes: 0 })).toEqual(LOST);
});

test("before a start what is left is cleared away, but for what waits for a recovery", async () => {
  const dying = new OneDevice({ ...LOST, state: "live", flags: 0 });
  using control = new UblkControl(dying);
  await clearOrphans(control, MARKS, [ID]);
  expect(dying.asked.at(-1)).toBe(CONTROL_CODE.deleteDeviceAsync);
  using waiting = new UblkControl(new OneDevice(LOST));
  expect(clearOrphans(waiting, MARKS, [ID])).rejects.toThrow(`--recover ${ID}`);
  const dead = new OneDevice({ ...LOST, state: "dead" });
  using other = new UblkControl(dead);
  await clearOrphans(other, MARKS, [ID]);
  expect(dead.asked.at(-1)).toBe(CONTROL_CODE.deleteDeviceAsync);
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

test("the device of a server is that while it starts, and as long as nobody else has it", async () => {
  const expected = (info: DeviceInfo, id = ID) =>
    expectServer(new UblkControl(new OneDevice(info)), id, 4711);
  await expected({ ...LOST, state: "dead", pid: -1 });
  await expected({ ...LOST, state: "live", pid: 4711 });
  const other = { ...LOST, state: "live", pid: 4712 } as const;
  await expect(expected(other)).rejects.toThrow("is served by process 4712");
  await expect(expected({ ...other, serverHigh: 0 })).rejects.toThrow("another program");
  await expect(expected(LOST, ID + 1)).rejects.toThrow("there is no ublk device");
});
