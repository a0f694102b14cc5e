import { expect, test } from "bun:test";
import { CONTROL_CODE, type DeviceInfo, encodeDeviceInfo } from "../formats/ublk.ts";
import { UblkControl } from "./control.ts";
import { type ControlChannel, type ControlCommand, TIMED_OUT } from "./control-channel.ts";

const EPERM = -1;
const EACCES = -13;
const EBUSY = -16;
const ENODEV = -19;
const EINVAL = -22;
const ENOSPC = -28;
const EOPNOTSUPP = -95;

const WISH = {
  queues: 8,
  depth: 64,
  ioBytesMax: 2 ** 20,
  flags: 0x40,
  serverLow: 5,
  serverHigh: 6,
} as const;

/** A driver that answers each command with what the test gave for its code. */
class ScriptedDriver implements ControlChannel {
  readonly asked: { readonly code: number; readonly device: number; readonly data: number }[] = [];
  readonly #answers: Map<number, readonly number[]>;
  readonly #info: DeviceInfo | undefined;

  constructor(answers: Readonly<Record<number, readonly number[]>>, info?: DeviceInfo) {
    this.#answers = new Map(Object.entries(answers).map(([code, all]) => [Number(code), all]));
    this.#info = info;
  }

  async run({ code, device, data, buffer }: ControlCommand): Promise<number> {
    this.asked.push({ code, device, data: data ?? 0 });
    const [result = 0, ...rest] = this.#answers.get(code) ?? [];
    this.#answers.set(code, rest);
    if (result === 0 && this.#info !== undefined) {
      buffer?.set(encodeDeviceInfo(this.#info));
    }
    return result;
  }

  [Symbol.dispose](): void {
    // It holds nothing.
  }
}

test("add: the device is as the driver made it, not as it was asked for", async () => {
  const made: DeviceInfo = { ...WISH, queues: 2, id: 3, state: "dead", pid: -1 };
  using control = new UblkControl(new ScriptedDriver({}, made));
  expect(await control.add(WISH)).toEqual(made);
});

test.each([
  [EPERM, "no permission"],
  [EACCES, "ublks_max"],
  [ENOSPC, "no device id is free"],
  [TIMED_OUT, "did not end it in time"],
  [EINVAL, "EINVAL"],
])("add: a failure (%d) is told with its reason", async (result, text) => {
  using control = new UblkControl(new ScriptedDriver({ [CONTROL_CODE.addDevice]: [result] }));
  expect(control.add(WISH)).rejects.toMatchObject({
    code: "E_UBLK_DEVICE",
    message: expect.stringContaining(text),
  });
});

test("features: a driver that does not know the question is too old", async () => {
  using control = new UblkControl(new ScriptedDriver({ [CONTROL_CODE.getFeatures]: [EINVAL] }));
  expect(control.features()).rejects.toMatchObject({
    code: "E_UBLK_DRIVER",
    message: expect.stringContaining("too old"),
  });
});

test("info and remove: a device that is not there is no error", async () => {
  const driver = new ScriptedDriver({
    [CONTROL_CODE.getDeviceInfo]: [ENODEV],
    [CONTROL_CODE.deleteDeviceAsync]: [ENODEV, 0],
  });
  using control = new UblkControl(driver);
  expect(await control.info(4)).toBeUndefined();
  expect(await control.remove(4)).toBe(false);
  expect(await control.remove(4)).toBe(true);
});

test("remove: a driver that cannot delete without waiting is asked to wait", async () => {
  const driver = new ScriptedDriver({ [CONTROL_CODE.deleteDeviceAsync]: [EOPNOTSUPP] });
  using control = new UblkControl(driver);
  expect(await control.remove(4)).toBe(true);
  expect(driver.asked.map(({ code }) => code)).toEqual([
    CONTROL_CODE.deleteDeviceAsync,
    CONTROL_CODE.deleteDevice,
  ]);
});

test("start: the driver is told which process serves", async () => {
  const driver = new ScriptedDriver({});
  using control = new UblkControl(driver);
  await control.start(7);
  expect(driver.asked).toEqual([{ code: CONTROL_CODE.startDevice, device: 7, data: process.pid }]);
});

test("recovery: while the old server is closing the device it is asked again", async () => {
  const served: DeviceInfo = { ...WISH, id: 1, state: "live", pid: 5 };
  const answers = { [CONTROL_CODE.startRecovery]: [EBUSY, EBUSY, 0] };
  const driver = new ScriptedDriver(answers, served);
  using control = new UblkControl(driver);
  await control.startRecovery(1);
  const asked = driver.asked.filter(({ code }) => code === CONTROL_CODE.startRecovery);
  expect(asked.length).toBe(3);
});

test("recovery: one that was stopped has nothing to be gone on with", async () => {
  const stopped: DeviceInfo = { ...WISH, id: 1, state: "dead", pid: -1 };
  const answers = { [CONTROL_CODE.startRecovery]: [EBUSY, EBUSY, 0] };
  using control = new UblkControl(new ScriptedDriver(answers, stopped));
  await expect(control.startRecovery(1)).rejects.toThrow("device 1 was stopped, or never started");
});

test("recovery: one that another server began is gone on with", async () => {
  const quiesced: DeviceInfo = { ...WISH, id: 1, state: "quiesced", pid: 5 };
  const answers = { [CONTROL_CODE.startRecovery]: [EINVAL] };
  using control = new UblkControl(new ScriptedDriver(answers, quiesced));
  await control.startRecovery(1);
});
