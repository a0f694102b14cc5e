import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { GuestArena } from "../../tests/support/guest-arena.ts";
import { SeededRandom } from "../../tests/support/random.ts";
import { lostRequests, NO_ANSWER } from "./lost-requests.ts";

const ENTRIES = 8;

/**
 * A ring from what was offered and answered, both whole; `first` is the index of the first of each.
 * @param hidden answers that were written, and not shown
 * @param prepared heads that the driver has written, and not shown
 */
function lost(
  offered: readonly number[],
  answered: readonly number[],
  { first = 0, hidden = [] as readonly number[], prepared = [] as readonly number[] } = {},
) {
  const at = (heads: readonly number[], index: number) => {
    const whole = (index - first) & 0xffff;
    // The place holds the youngest head that was put there.
    const place = whole % ENTRIES;
    const last = heads.length - 1 - ((heads.length - 1 - place + ENTRIES) % ENTRIES);
    return heads[last < 0 || last >= heads.length ? -1 : last] ?? NO_ANSWER;
  };
  const written = [...answered, ...hidden];
  return lostRequests({
    entries: ENTRIES,
    availableIndex: (first + offered.length) & 0xffff,
    usedIndex: (first + answered.length) & 0xffff,
    availableHead: (index) => at([...offered, ...prepared], index),
    usedHead: (index) => at(written, index),
  });
}

describe("what a ring tells without notes", () => {
  test("nothing is outstanding when all was answered", () => {
    expect(lost([0, 1, 0], [1, 0, 0])).toEqual([]);
  });

  test("heads that were not answered for a whole ring are outstanding, whatever the order of the others", () => {
    expect(lost([0, 1, 2, 3, 4, 5], [3, 0, 1, 2])).toEqual([4, 5]);
  });

  test("an older one that is open in place of one of the last says nothing", () => {
    expect(lost([0, 1, 2, 3, 4, 5], [0, 1, 2, 4])).toBeUndefined();
  });

  test("nor does what a driver has written and not shown, in the place of what it offered before", () => {
    const offered = [2, 1, 3, 1, 3, 1, 3, 1, 3, 1, 3, 1, 4];
    const answered = [1, 3, 1, 3, 1, 3, 1, 3, 1, 3, 1, 4];
    expect(lost(offered, answered, { prepared: [0, 3, 1, 5, 6, 7, 4] })).toBeUndefined();
  });

  test("a head that is used again at once says nothing: an older one may be outstanding", () => {
    expect(lost([7, ...new Array(20).fill(0)], new Array(20).fill(0))).toBeUndefined();
  });

  test("an answer that was written over by one that was not shown: nothing is certain", () => {
    const heads = [0, 1, 2, 3, 4, 5, 6, 7];
    const offered = [...heads, 0]; // the ring was full, and the youngest was answered first
    const answered = [7, 1, 2, 3, 4, 5, 6, 0];
    expect(lost(offered, answered, { hidden: [0] })).toBeUndefined();
    expect(lost(offered, answered)).toBeUndefined();
  });

  test("few heads over and over: none of their answers can have been written over", () => {
    const turns = Array.from({ length: 30 }, (_, i) => i % 3);
    expect(lost([...turns, 5, 4], turns)).toEqual([5, 4]);
    expect(lost([...turns, 5, 4], turns, { hidden: [4] })).toEqual([5, 4]);
  });

  test("more than the ring holds is never certain", () => {
    expect(lost([0, 1, 2, 3, 4, 5, 6, 7, 0, 1], [])).toBeUndefined();
  });
});

test("lost requests: what is called certain is the truth, for any order and any use of heads", () => {
  const step = fc.record({ isOffer: fc.boolean(), pick: fc.nat(1000) });
  let certain = 0;
  fc.assert(
    fc.property(
      fc.array(step, { maxLength: 80 }),
      fc.nat(0xffff),
      fc.boolean(),
      fc.nat(ENTRIES),
      (steps, first, isFifo, hiddenMax) => {
        const free = Array.from({ length: ENTRIES }, (_, i) => i);
        const outstanding: number[] = [];
        const [offered, answered]: [number[], number[]] = [[], []];
        for (const { isOffer, pick } of steps) {
          if (isOffer && free.length > 0) {
            const head = free.splice(isFifo ? 0 : pick % free.length, 1)[0] ?? 0;
            offered.push(head);
            outstanding.push(head);
          } else if (!isOffer && outstanding.length > 0) {
            const head = outstanding.splice(pick % outstanding.length, 1)[0] ?? 0;
            answered.push(head);
            free.push(head);
          }
        }
        const hidden = outstanding.toSorted((a, b) => a - b).slice(0, hiddenMax);
        const prepared = free.slice(0, hiddenMax);
        const heads = lost(offered, answered, { first, hidden, prepared });
        if (heads !== undefined) {
          certain += heads.length > 0 ? 1 : 0;
          expect(heads).toEqual(outstanding);
        }
      },
    ),
    { numRuns: 2000 },
  );
  expect(certain).toBeGreaterThan(100);
});

test("lost requests: nor is it wrong where the ring was full, and answers were written and not shown", () => {
  const random = new SeededRandom(7);
  let certain = 0;
  for (let round = 0; round < 20_000; round++) {
    const free = Array.from({ length: ENTRIES }, (_, i) => i);
    const outstanding: number[] = [];
    const [offered, answered]: [number[], number[]] = [[], []];
    let isFilling = true;
    for (let steps = random.between(1, 6 * ENTRIES); steps > 0; steps--) {
      isFilling = outstanding.length === 0 || (isFilling && free.length > 0 && !random.oneIn(9));
      if (isFilling) {
        const head = free.pop() ?? 0;
        offered.push(head);
        outstanding.push(head);
      } else {
        const youngest = outstanding.length - 1;
        const place = random.oneIn(2) ? youngest : random.below(outstanding.length);
        const head = outstanding.splice(place, 1)[0] ?? 0;
        answered.push(head);
        free.push(head);
      }
    }
    const hidden = outstanding.slice(0, random.below(4));
    const prepared = free.slice(0, random.below(ENTRIES));
    const heads = lost(offered, answered, { hidden, prepared });
    if (heads !== undefined) {
      certain += heads.length > 0 ? 1 : 0;
      expect(heads).toEqual(outstanding);
    }
  }
  expect(certain).toBeGreaterThan(1000);
});

describe("a split ring that another back end left without notes", () => {
  test("is taken on where its open requests are certain", () => {
    using guest = new GuestArena({ entries: ENTRIES });
    guest.offer(3, 5, 6);
    const first = guest.restart(0);
    for (const head of [3, 5, 6]) {
      first.take(head);
    }
    first.push(3, 1);
    first.publish();
    const ring = guest.restart(1);
    expect(ring.resumeWithoutNotes()).toBeUndefined();
    expect([ring.waiting(), ring.againCount, ring.peek(), ring.nextAvailable]).toEqual([
      2, 2, 5, 3,
    ]);
  });

  test("is left alone where they are not", () => {
    using guest = new GuestArena({ entries: ENTRIES });
    for (let i = 0; i < 20; i++) {
      guest.offer(0);
      guest.ring.take(0);
      guest.ring.push(0, 1);
      guest.ring.publish();
    }
    guest.offer(0);
    expect(guest.restart(20).resumeWithoutNotes()).toContain("1 requests of an earlier backend");
  });

  test("is taken on behind its answers, also those that the front end has not seen", () => {
    using guest = new GuestArena({ entries: ENTRIES });
    guest.offer(3, 5, 6);
    const first = guest.restart(0);
    for (const head of [3, 5]) {
      first.take(head);
      first.push(head, 1);
    }
    first.publish();
    const ring = guest.restart(1); // the front end left before the second answer
    expect(ring.resumeWithoutNotes()).toBeUndefined();
    expect([ring.waiting(), ring.peek(), ring.nextAvailable]).toEqual([1, 6, 3]);
  });

  test("in which nothing was ever answered is a new one", () => {
    using guest = new GuestArena({ entries: ENTRIES });
    guest.offer(0, 1);
    const ring = guest.restart(0);
    expect(ring.resumeWithoutNotes()).toBeUndefined();
    expect([ring.waiting(), ring.againCount]).toEqual([2, 0]);
  });

  test("is fresh until something was answered, and not again after 65536 answers", () => {
    using guest = new GuestArena({ entries: ENTRIES });
    expect(guest.restart(0).isFresh).toBe(true);
    for (let i = 0; i < 0x1_0000; i++) {
      guest.offer(0);
      guest.ring.take(0);
      guest.ring.push(0, 1);
      guest.ring.publish();
    }
    expect(guest.restart(0).isFresh).toBe(false);
  });
});
