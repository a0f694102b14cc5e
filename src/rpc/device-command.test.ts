import { expect, test } from "bun:test";
import { deviceAnswer } from "./device-command.ts";

const FACTS = {
  deviceId: "disk1",
  frontEnd: "vhost",
  cipherProvider: "vaes",
  queues: 4,
  queueSize: 64,
  isReadOnly: false,
  capacityBytes: () => 42_949_672_960,
} as const;

test("device: what the disk is, keys in alphabetical order", () => {
  expect(JSON.stringify(deviceAnswer(FACTS, "device"))).toBe(
    '{"device":{"capacity_bytes":42949672960,"cipher":"vaes","device_id":"disk1","front_end":"vhost",' +
      '"queue_size":64,"queues":4,"read_only":false}}',
  );
});

test("device: of a front end of vhost-user, whether it is there and keeps track of requests", () => {
  const connected = { isConnected: true, isTracking: true };
  const answer = deviceAnswer({ ...FACTS, connected }, "device");
  expect(answer).toMatchObject({ device: { front_end_connected: true, inflight_tracking: true } });
});

test("any other command: no answer", () => {
  expect(deviceAnswer(FACTS, "version")).toBeUndefined();
});
