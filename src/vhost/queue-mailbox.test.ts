import { expect, test } from "bun:test";
import { AssertionError } from "../errors.ts";
import { createEvent, drainEvent } from "../ffi/event.ts";
import { closeDescriptor } from "../ffi/socket.ts";
import { QueueCommand, QueueMailbox, RingState, WITHDRAWN } from "./queue-mailbox.ts";

test("mailbox: a command without an answer ends with its deadline and stays posted", () => {
  using boxes = new Boxes();
  expect(boxes.control.command(QueueCommand.stop, [], 20)).toBe(-1);
  expect(boxes.control.isBusy()).toBe(true);
  expect(boxes.queue.pending()).toBe(QueueCommand.stop);
  expect(drainEvent(boxes.queue.wakeFd)).toBe(1);
});

test("mailbox: a late answer frees it", () => {
  using boxes = new Boxes();
  boxes.control.command(QueueCommand.setCall, [17, 1], 5);
  expect([boxes.queue.argument(0), boxes.queue.argument(1)]).toEqual([17, 1]);
  boxes.queue.answer(0);
  expect(boxes.queue.pending()).toBe(0);
  expect(boxes.control.isBusy()).toBe(false);
});

test("mailbox: a command without an answer is taken back, if the queue says so", () => {
  using boxes = new Boxes();
  boxes.control.command(QueueCommand.stop, [], 5);
  expect(boxes.control.withdraw(5)).toBe(-1);
  expect(boxes.queue.pending()).toBe(QueueCommand.withdrawn);
  boxes.queue.answer(WITHDRAWN);
  expect(boxes.control.isBusy()).toBe(false);
});

test("mailbox: what was carried out after all is not taken back", () => {
  using boxes = new Boxes();
  boxes.control.command(QueueCommand.stop, [], 5);
  boxes.queue.answer(77);
  expect(boxes.control.withdraw(5)).toBe(77);
});

test("mailbox: two commands at a time are a programmer's error", () => {
  using boxes = new Boxes();
  boxes.control.command(QueueCommand.stop, [], 5);
  expect(() => boxes.control.command(QueueCommand.stop, [], 5)).toThrow(AssertionError);
});

test("mailbox: the state of the ring is seen by the other side", () => {
  using boxes = new Boxes();
  expect(boxes.control.ringState()).toBe(RingState.stopped);
  boxes.queue.setRingState(RingState.broken);
  expect(boxes.control.ringState()).toBe(RingState.broken);
});

test("mailbox: an answer from another thread ends the wait, many times", async () => {
  using boxes = new Boxes();
  const answerer = `
    self.onmessage = ({ data }) => {
      const words = new Int32Array(data, 0, 8);
      postMessage("ready");
      for (let done = 0; done < 200; ) {
        if (Atomics.load(words, 0) !== Atomics.load(words, 1)) {
          Atomics.store(words, 3, done);
          Atomics.store(words, 1, Atomics.load(words, 0));
          Atomics.notify(words, 1);
          done += 1;
        }
      }
      postMessage("done");
    };`;
  const worker = new Worker(URL.createObjectURL(new Blob([answerer])));
  const ready = new Promise((resolve) => {
    worker.onmessage = resolve;
  });
  worker.postMessage(boxes.shared);
  await ready;
  const answers = Array.from({ length: 200 }, () =>
    boxes.control.command(QueueCommand.stop, [], 5000),
  );
  expect(answers).toEqual(Array.from({ length: 200 }, (_, i) => i));
  worker.terminate();
});

// --- internal ---

/** Both sides of one mailbox. */
class Boxes implements Disposable {
  readonly shared = new SharedArrayBuffer(QueueMailbox.sharedBytes);
  readonly #wakeFd = createEvent();
  readonly control = new QueueMailbox(this.shared, this.#wakeFd);
  readonly queue = new QueueMailbox(this.shared, this.#wakeFd);

  [Symbol.dispose](): void {
    closeDescriptor(this.#wakeFd);
  }
}
