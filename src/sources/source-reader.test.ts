import { expect, test } from "bun:test";
import { FakeSource } from "./fake-source.ts";
import { SourceReader } from "./source-reader.ts";

const STRIPE_BYTES = 4096;
const REQUESTS_MAX = 2;
/** Nothing is written there. */
const ADDRESS = 0x10000;

test("a read ends when the source ended it", async () => {
  const { source, reader } = started();
  const read = reader.read(1, ADDRESS, STRIPE_BYTES);
  expect(source.underWay).toMatchObject([{ stripe: 1, address: ADDRESS, lengthBytes: 4096 }]);
  source.finish(0);
  await read;
  await reader[Symbol.asyncDispose]();
});

test("a length is rounded up to the source's unit", async () => {
  const { source, reader } = started();
  const read = reader.read(0, ADDRESS, 513);
  expect(source.underWay[0]?.lengthBytes).toBe(1024);
  source.finish(0);
  await read;
});

test("more reads than the source takes wait their turn, in order", async () => {
  const { source, reader } = started();
  const ended: number[] = [];
  const reads = [3, 4, 5, 6].map((stripe) =>
    reader.read(stripe, ADDRESS, STRIPE_BYTES).then(() => ended.push(stripe)),
  );
  expect(source.underWay.map(({ stripe }) => stripe)).toEqual([3, 4]);
  source.finish(1);
  await reads[1];
  expect(source.underWay.map(({ stripe }) => stripe)).toEqual([3, 5]);
  source.finish(0);
  source.finish(0);
  await reads[2];
  source.finish(0);
  await Promise.all(reads);
  expect(ended).toEqual([4, 3, 5, 6]);
});

test("a read that fails says which stripe, of what, and why; others go on", async () => {
  const { source, reader } = started();
  const failing = reader.read(7, ADDRESS, STRIPE_BYTES);
  const other = reader.read(8, ADDRESS, STRIPE_BYTES);
  source.finish(0, -5);
  source.finish(0);
  await other;
  await expect(failing).rejects.toThrow(
    "cannot read stripe 7 from a fake: EIO (input/output error)",
  );
});

test("closing rejects what has not ended, lets go of the source, and does what was asked for once", async () => {
  let closes = 0;
  const { source, reader } = started(async () => {
    closes += 1;
  });
  const reads = [1, 2, 3].map((stripe) => reader.read(stripe, ADDRESS, STRIPE_BYTES));
  const ends = Promise.allSettled(reads);
  await reader[Symbol.asyncDispose]();
  await reader[Symbol.asyncDispose]();
  expect((await ends).map(({ status }) => status)).toEqual(["rejected", "rejected", "rejected"]);
  expect([source.isDisposed, closes]).toEqual([true, 1]);
});

// --- internal ---

function started(close?: () => Promise<void>) {
  const source = new FakeSource({
    sectors: 16 * 8,
    stripeBytes: STRIPE_BYTES,
    requestsMax: REQUESTS_MAX,
    byteAt: () => 1,
    store: () => {},
  });
  const reader = new SourceReader(source, {
    requestsMax: REQUESTS_MAX,
    name: "a fake",
    ...(close === undefined ? {} : { close }),
  });
  return { source, reader };
}
