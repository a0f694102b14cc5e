import { expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import { closeDescriptor, pairOfSockets } from "../ffi/socket.ts";
import { HandOver } from "./hand-over.ts";

const SOON = { timeoutMs: 20 };

test("a message comes as it was sent, with its descriptors", async () => {
  using pair = new Pair();
  const state = { isWriteback: false, limits: [{ perSecond: 7 }, {}] };
  pair.old.send({ kind: "yours", state }, [0, 1]);
  const { message, descriptors } = await pair.new.expect("yours", SOON);
  descriptors.forEach(closeDescriptor);
  expect(message.state).toEqual(state);
  expect(descriptors).toHaveLength(2);
});

test("another message than the one that is due is an error, and its descriptors are closed", async () => {
  using pair = new Pair();
  const before = readdirSync("/proc/self/fd").length;
  pair.old.send({ kind: "go" }, [0]);
  await expect(pair.new.expect("yours", SOON)).rejects.toThrow(
    "old does not say what was expected",
  );
  expect(readdirSync("/proc/self/fd").length).toBe(before);
});

test("a refusal is the error of who waits", async () => {
  using pair = new Pair();
  pair.new.refuse("E_CONFIG: no disk");
  await expect(pair.old.expect("prepared", SOON)).rejects.toThrow("E_CONFIG: no disk");
});

test("silence ends with its time, a signal ends it sooner", async () => {
  using pair = new Pair();
  await expect(pair.old.expect("prepared", SOON)).rejects.toThrow("in vain for 0.02 s");
  const signal = AbortSignal.abort(new Error("stop"));
  await expect(pair.old.expect("prepared", { timeoutMs: 60_000, signal })).rejects.toThrow("stop");
});

test("what was said before an end counts, then the end does", async () => {
  using pair = new Pair();
  pair.old.send({ kind: "go" });
  pair.old[Symbol.dispose]();
  expect((await pair.new.expect("go", SOON)).message.kind).toBe("go");
  await expect(pair.new.expect("go", SOON)).rejects.toThrow("old has ended");
  expect(() => pair.new.send({ kind: "serving" })).toThrow("old has ended");
  await pair.new.closed(60_000);
});

// --- internal ---

class Pair implements Disposable {
  readonly old: HandOver;
  readonly new: HandOver;

  constructor() {
    const [own, given] = pairOfSockets();
    this.old = new HandOver(own, "new");
    this.new = new HandOver(given, "old");
  }

  [Symbol.dispose](): void {
    this.old[Symbol.dispose]();
    this.new[Symbol.dispose]();
  }
}
