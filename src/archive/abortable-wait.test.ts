import { expect, test } from "bun:test";
import { abortableSleep, startTimer } from "./abortable-wait.ts";

test("a time that is longer than any timer's does not end at once", async () => {
  for (const ms of [2 ** 31, 2 ** 32 + 1, Number.MAX_SAFE_INTEGER]) {
    const reason = new Error("enough");
    const enough = new AbortController();
    setTimeout(() => enough.abort(reason), 30);
    await expect(abortableSleep(ms, enough.signal)).rejects.toBe(reason);
  }
});

test("a timer rings in time, and not after it was stopped", async () => {
  const rung: string[] = [];
  startTimer(1, () => rung.push("short"));
  const stop = startTimer(1, () => rung.push("stopped"));
  stop();
  await Bun.sleep(20);
  expect(rung).toEqual(["short"]);
});
