import { expect, test } from "bun:test";
import fc from "fast-check";
import { GuestArena } from "../../tests/support/guest-arena.ts";
import { needEvent } from "../formats/virtio-ring.ts";

const ENTRIES = 8;
const NO_INTERRUPT = 1;
const NO_NOTIFY = 1;

test("split ring: heads are taken in the order in which they were offered", () => {
  using guest = new GuestArena({ entries: ENTRIES });
  guest.offer(3, 1, 7);
  const heads = [0, 1, 2].map(() => {
    const head = guest.ring.peek();
    guest.ring.take(guest.ring.peek());
    return head;
  });
  expect(heads).toEqual([3, 1, 7]);
  expect(guest.ring.waiting()).toBe(0);
});

test("split ring: a head that is only peeked at stays in the ring", () => {
  using guest = new GuestArena({ entries: ENTRIES });
  guest.offer(5);
  expect(guest.ring.peek()).toBe(5);
  expect(guest.ring.peek()).toBe(5);
  expect(guest.ring.waiting()).toBe(1);
});

test("split ring: the indexes run over 65535", () => {
  using guest = new GuestArena({ entries: ENTRIES });
  guest.available[1] = 0xfffe;
  guest.used[1] = 0xfffe;
  const ring = guest.restart(0xfffe);
  guest.offer(1, 2, 3, 4);
  expect(ring.waiting()).toBe(4);
  for (let i = 0; i < 4; i++) {
    ring.push(ring.peek(), i);
    ring.take(ring.peek());
  }
  ring.publish();
  expect(ring.nextAvailable).toBe(2);
  expect(guest.used[1]).toBe(2);
  expect([...guest.usedElements.slice(6 * 2)]).toEqual([1, 0, 2, 1]);
  expect([...guest.usedElements.slice(0, 4)]).toEqual([3, 2, 4, 3]);
});

test("split ring: an index that jumps by more than the ring shows as more chains than entries", () => {
  using guest = new GuestArena({ entries: ENTRIES });
  guest.available[1] = ENTRIES + 1;
  expect(guest.ring.waiting()).toBeGreaterThan(ENTRIES);
});

test("split ring: an index that goes back shows as more chains than entries", () => {
  using guest = new GuestArena({ entries: ENTRIES });
  guest.available[1] = 0xffff;
  expect(guest.ring.waiting()).toBeGreaterThan(ENTRIES);
});

test("split ring: used elements are not shown before they are published", () => {
  using guest = new GuestArena({ entries: ENTRIES });
  guest.ring.push(4, 513);
  expect(guest.used[1]).toBe(0);
  guest.ring.publish();
  expect(guest.used[1]).toBe(1);
  expect([...guest.usedElements.slice(0, 2)]).toEqual([4, 513]);
});

test("split ring: it goes on at the used index that it finds", () => {
  using guest = new GuestArena({ entries: ENTRIES });
  guest.used[1] = 41;
  const ring = guest.restart(41);
  ring.push(6, 1);
  ring.publish();
  expect(guest.used[1]).toBe(42);
  expect(guest.usedElements[(41 % ENTRIES) * 2]).toBe(6);
});

test("split ring: without event indexes the flag decides about calls and kicks", () => {
  using guest = new GuestArena({ entries: ENTRIES });
  guest.ring.push(0, 1);
  expect(guest.ring.publish()).toBe(true);
  guest.available[0] = NO_INTERRUPT;
  guest.ring.push(1, 1);
  expect(guest.ring.publish()).toBe(false);
  guest.ring.disableKicks();
  expect(guest.used[0]).toBe(NO_NOTIFY);
  guest.ring.enableKicks();
  expect(guest.used[0]).toBe(0);
});

test("split ring: with event indexes a kick is asked for at the next chain", () => {
  using guest = new GuestArena({ entries: ENTRIES, hasEventIndex: true });
  guest.offer(1, 2, 3);
  guest.ring.take(guest.ring.peek());
  guest.ring.take(guest.ring.peek());
  guest.ring.enableKicks();
  expect(guest.used[2 + ENTRIES * 4]).toBe(2);
});

test("split ring: with event indexes the first publication calls, whatever the driver asked for before", () => {
  using guest = new GuestArena({ entries: ENTRIES, hasEventIndex: true });
  // The driver waits for element 3; a backend before this one pushed it and died before its call.
  guest.used[1] = 4;
  guest.available[2 + ENTRIES] = 3;
  const ring = guest.restart(4);
  ring.push(0, 1);
  expect(ring.publish()).toBe(true);
  ring.push(1, 1);
  expect(ring.publish()).toBe(false);
});

test("split ring: with event indexes a call comes for the element that the driver waits for", () => {
  using guest = new GuestArena({ entries: ENTRIES, hasEventIndex: true });
  guest.ring.push(0, 1);
  guest.ring.publish();
  guest.available[2 + ENTRIES] = 2; // call at the third element
  guest.ring.push(1, 1);
  expect(guest.ring.publish()).toBe(false);
  guest.ring.push(2, 1);
  expect(guest.ring.publish()).toBe(true);
  guest.ring.push(3, 1);
  expect(guest.ring.publish()).toBe(false);
});

test("split ring: a driver that polled through a whole turn of the index is called when it sleeps again", () => {
  using guest = new GuestArena({ entries: ENTRIES, hasEventIndex: true });
  guest.available[2 + ENTRIES] = 0;
  guest.ring.push(0, 1);
  expect(guest.ring.publish()).toBe(true);
  // It leaves its event at 0 while it polls: the elements from 1 on need no call.
  for (let index = 1; index <= 0xffff; index++) {
    guest.ring.push(0, 1);
    expect(guest.ring.publish()).toBe(false);
  }
  // Element 65536, whose index is 0 again, is what it sleeps for.
  guest.ring.push(0, 1);
  expect(guest.ring.publish()).toBe(true);
});

test("split ring: calls are those that the specification's formula asks for, for any run of indexes", () => {
  const step = fc.record({ pushes: fc.integer({ min: 1, max: ENTRIES }), ahead: fc.nat(0xffff) });
  fc.assert(
    fc.property(fc.nat(0xffff), fc.array(step, { maxLength: 40 }), (start, steps) => {
      using guest = new GuestArena({ entries: ENTRIES, hasEventIndex: true });
      guest.used[1] = start;
      const ring = guest.restart(start);
      let index = start;
      let isFirst = true;
      for (const { pushes, ahead } of steps) {
        const event = (index + ahead) & 0xffff;
        guest.available[2 + ENTRIES] = event;
        for (let i = 0; i < pushes; i++) {
          ring.push(i, 1);
        }
        const before = index;
        index = (index + pushes) & 0xffff;
        expect(ring.publish()).toBe(isFirst || needEvent(event, index, before));
        isFirst = false;
      }
    }),
  );
});
