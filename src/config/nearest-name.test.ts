import { expect, test } from "bun:test";
import { nearestName } from "./nearest-name.ts";

const KEYS = ["data_path", "metadata_path", "vhost_socket", "rpc_socket"];

test.each([
  ["data_pth", "data_path"],
  ["dtaa_path", "data_path"],
  ["metadata_paths", "metadata_path"],
  ["vhost_soket", "vhost_socket"],
])("%s is taken for %s", (typed, meant) => {
  expect(nearestName(typed, KEYS)).toBe(meant);
});

test("of two that are as near, that of the same length is meant", () => {
  expect(nearestName("stauts", ["stats", "status"])).toBe("status");
  expect(nearestName("stauts", ["status", "stats"])).toBe("status");
  expect(nearestName("stat", ["stats", "state"])).toBe("stats");
});

test("a name that is like none has no suggestion", () => {
  expect(nearestName("bandwidth", KEYS)).toBeUndefined();
});

test("a beginning is taken for the only name that has it", () => {
  expect(nearestName("vho", KEYS.values())).toBe("vhost_socket");
  expect(nearestName("vh", KEYS)).toBeUndefined();
  expect(nearestName("stripe", ["stripe-server", "stripe-shell"])).toBeUndefined();
});

test("a very long name costs little and has no suggestion", () => {
  expect(nearestName("x".repeat(1_000_000), KEYS)).toBeUndefined();
});
