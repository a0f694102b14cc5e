import { expect, test } from "bun:test";
import { until } from "../../tests/support/until.ts";
import { createSharedLimits, RETRY_COST, S3Limits } from "./s3-limits.ts";

const held = () => Promise.withResolvers<void>();

test("no more requests run than there are places, in the order they came", async () => {
  const limits = new S3Limits(createSharedLimits(2));
  const gates = [held(), held(), held(), held()];
  const started: number[] = [];
  const runs = gates.map((gate, i) =>
    limits.withPlace(undefined, async () => {
      started.push(i);
      await gate.promise;
    }),
  );
  await until("all places are taken", () => started.length === 2);
  await Bun.sleep(5);
  expect(started).toEqual([0, 1]);
  gates[1]?.resolve();
  await runs[1];
  await until("the place is taken again", () => started.length === 3);
  await Bun.sleep(5);
  expect(started).toEqual([0, 1, 2]);
  for (const gate of gates) {
    gate.resolve();
  }
  await Promise.all(runs);
  expect(started).toEqual([0, 1, 2, 3]);
});

test("the places are those of all threads that share the buffer", async () => {
  const shared = createSharedLimits(1);
  const gate = held();
  const first = new S3Limits(shared).withPlace(undefined, () => gate.promise);
  await Bun.sleep(1);
  let isStarted = false;
  const second = new S3Limits(shared).withPlace(undefined, async () => {
    isStarted = true;
  });
  await Bun.sleep(5);
  expect(isStarted).toBe(false);
  gate.resolve();
  await Promise.all([first, second]);
  expect(isStarted).toBe(true);
});

test("who waits for a place is ended by the signal and takes none", async () => {
  const limits = new S3Limits(createSharedLimits(1));
  const gate = held();
  const first = limits.withPlace(undefined, () => gate.promise);
  const controller = new AbortController();
  const second = limits.withPlace(controller.signal, async () => "ran");
  const third = limits.withPlace(undefined, async () => "ran");
  await Bun.sleep(1);
  controller.abort(new Error("enough"));
  expect(second).rejects.toThrow("enough");
  gate.resolve();
  expect(await third).toBe("ran");
  await first;
});

test("a place is free again after a failure", async () => {
  const limits = new S3Limits(createSharedLimits(1));
  const failure = limits.withPlace(undefined, () => Promise.reject(new Error("failed")));
  expect(failure).rejects.toThrow("failed");
  expect(await limits.withPlace(undefined, async () => "ran")).toBe("ran");
});

test("the quota pays for 50 retries of broken connections, or 100 of throttled requests", () => {
  const retries = (cost: number) => {
    const limits = new S3Limits(createSharedLimits(1));
    let count = 0;
    while (limits.takeRetry(cost)) {
      count += 1;
    }
    return count;
  };
  expect([retries(RETRY_COST.transient), retries(RETRY_COST.throttling)]).toEqual([50, 100]);
});

test("success gives back what its retries cost, a first try that succeeds gives one", () => {
  const limits = new S3Limits(createSharedLimits(1));
  limits.giveBack(0); // full already
  for (let i = 0; i < 50; i++) {
    limits.takeRetry(10);
  }
  expect(limits.takeRetry(10)).toBe(false);
  limits.giveBack(10);
  expect(limits.takeRetry(10)).toBe(true);
  for (let i = 0; i < 9; i++) {
    limits.giveBack(0);
  }
  expect(limits.takeRetry(10)).toBe(false);
  limits.giveBack(0);
  expect(limits.takeRetry(10)).toBe(true);
});
