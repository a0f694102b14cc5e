/** A disk grows in order: the front end is asked, the disk grows, the guest is told; one growth at a time. */
import { expect, test } from "bun:test";
import { UbiError } from "../errors.ts";
import { DiskGrowth } from "./disk-growth.ts";
import { DiskSize } from "./disk-size.ts";

test("asked before anything changes, told when all is in place", async () => {
  const world = started();
  expect(await world.growth.growToFile()).toEqual({
    bytesBefore: 4096,
    bytes: 8192,
    guest: "told",
  });
  expect(world.log).toEqual(["asked", "durable", "grown to 16", "told of 16"]);
});

test("a front end that cannot tell of another size: nothing changes", async () => {
  const world = started({ cannotTell: true });
  const failure = world.growth.growToFile();
  await expect(failure).rejects.toMatchObject({ code: "E_UBLK_DRIVER" });
  expect(world.log).toEqual(["asked"]);
});

test("not before the disk is served, and not after", async () => {
  const world = started();
  world.growth.close();
  await expect(world.growth.growToFile()).rejects.toMatchObject({ code: "E_RESIZE" });
  expect(world.log).toEqual([]);
});

test.each([
  { when: "before its metadata is written", closedAt: "durable", rest: [] },
  { when: "before its guest is told", closedAt: "grown to 16", rest: ["grown to 16"] },
])("a disk that is stopped $when has nothing of it touched any more", async (row) => {
  const world = started({ closedAt: row.closedAt });
  const ended = await world.growth.growToFile().then(
    ({ guest }) => guest,
    (error: UbiError) => error.code,
  );
  expect(ended).toBe(row.rest.length === 0 ? "E_RESIZE" : "next_connection");
  expect(world.log).toEqual(["asked", "durable", ...row.rest]);
});

test("a second one while the first is under way is refused; the next is not", async () => {
  const world = started();
  const first = world.growth.growToFile();
  await expect(world.growth.growToFile()).rejects.toThrow("growing already");
  await first;
  expect((await world.growth.growToFile()).bytesBefore).toBe(8192);
});

test("the size that threads look at: seen once, as often as it grew", () => {
  const size = DiskSize.create(8);
  const thread = new DiskSize(size.shared);
  expect(thread.hasGrown()).toBe(false);
  size.grow(2 ** 41);
  size.grow(2 ** 42);
  expect([thread.hasGrown(), thread.sectors, thread.hasGrown()]).toEqual([true, 2 ** 42, false]);
});

// --- internal ---

function started({ cannotTell = false, closedAt = "" } = {}) {
  const log: string[] = [];
  const step = (what: string) => {
    log.push(what);
    if (what === closedAt) {
      growth.close();
    }
  };
  const size = DiskSize.create(8);
  const growth = new DiskGrowth({
    size,
    measure: () => 16,
    syncSize: async () => step("durable"),
    grow: async (sectors) => {
      step(`grown to ${sectors}`);
      size.grow(sectors);
    },
  });
  growth.open({
    checkGrowth: () => {
      log.push("asked");
      if (cannotTell) {
        throw new UbiError("E_UBLK_DRIVER", "too old");
      }
    },
    tellSize: async (sectors) => {
      log.push(`told of ${sectors}`);
      return "told";
    },
  });
  return { growth, log };
}
