/** The table over which the threads of a run share its work. */
import { expect, test } from "bun:test";
import { COUNTER, StripeBoard } from "./stripe-board.ts";

function boardOf(work: readonly number[], buffers = 0): StripeBoard {
  const shared = new Uint8Array(new SharedArrayBuffer(work.length));
  shared.set(work);
  return StripeBoard.create({ work: shared, workers: 2, buffers });
}

const claimAll = (board: StripeBoard) => {
  const claimed: number[] = [];
  for (let stripe = board.claim(); stripe >= 0; stripe = board.claim()) {
    claimed.push(stripe);
  }
  return claimed;
};

test("stripes of the workers are claimed once each, in order, and others never", () => {
  const board = boardOf([1, 0, 2, 1, 1]);
  const other = StripeBoard.attach(board.shared);
  expect([board.claim(), other.claim()]).toEqual([0, 3]);
  expect(claimAll(board)).toEqual([4]);
  expect(other.claim()).toBe(-1);
});

test("a board that is stopped gives no more work", () => {
  const board = boardOf([1, 1]);
  board.claim();
  board.stop();
  expect(board.claim()).toBe(-1);
});

test("a buffer goes round: filled, offered, taken by one worker, free again", () => {
  const board = boardOf([2, 2], 1);
  const buffer = board.takeFree();
  expect([buffer, board.takeFree(), board.takeOffered()]).toEqual([0, -1, -1]);
  board.offer(buffer, 1);
  expect([board.takeOffered(), board.takeOffered()]).toEqual([0, -1]);
  expect(board.stripeIn(0)).toBe(1);
  board.giveBack(0);
  expect(board.takeFree()).toBe(0);
});

test("who waits for an offer is woken by one, by the end of all offers, and by a stop", async () => {
  for (const wake of [
    (board: StripeBoard) => board.offer(board.takeFree(), 0),
    (board: StripeBoard) => board.endOffers(),
    (board: StripeBoard) => board.stop(),
  ]) {
    const board = boardOf([2], 1);
    const waiting = board.waitForOffer(board.offerTicket);
    wake(board);
    await waiting;
    expect(await Promise.race([board.waitForOffer(-1), Bun.sleep(5_000)])).toBeUndefined();
  }
});

test("what changed before the wait began is not slept through", async () => {
  const board = boardOf([2], 1);
  const ticket = board.offerTicket;
  board.endOffers();
  await board.waitForOffer(ticket);
  expect(board.areOffersOver).toBe(true);
});

test("who takes its ticket when the work was just stopped does not sleep", async () => {
  const board = boardOf([2], 1);
  board.stop();
  const sleep = Bun.sleep(500).then(() => "slept");
  const waits = [board.waitForOffer(board.offerTicket), board.waitForReturn(board.returnTicket)];
  expect(await Promise.race([Promise.all(waits), sleep])).toEqual([undefined, undefined]);
});

test("counters are summed over the workers", () => {
  const board = boardOf([]);
  board.count(0, COUNTER.OBJECT_BYTES, 5);
  StripeBoard.attach(board.shared).count(1, COUNTER.OBJECT_BYTES, 7);
  board.count(1, COUNTER.OBJECTS, 1);
  expect([board.total(COUNTER.OBJECT_BYTES), board.total(COUNTER.OBJECTS)]).toEqual([12, 1]);
});
