/** How far a long transfer is. */
import { expect, test } from "bun:test";
import { setLogFormat } from "../log.ts";
import { durationText, quantityText } from "./quantity-text.ts";
import { type ProgressOptions, TransferProgress } from "./transfer-progress.ts";

const MIB = 2 ** 20;

/** A progress whose clock the test moves, and what it wrote. */
function progressOf(options: Partial<ProgressOptions>) {
  const written: string[] = [];
  const clock = { ms: 0 };
  const progress = new TransferProgress({
    label: "archive",
    isQuiet: false,
    isJson: false,
    isTerminal: false,
    ...options,
    write: (fd, text) => written.push(`${fd} ${text}`),
    nowMs: () => clock.ms,
  });
  return { progress, written, clock };
}

test("elsewhere than on a terminal: a line every ten seconds, with rate and time left", () => {
  const { progress, written, clock } = progressOf({});
  for (clock.ms = 0; clock.ms <= 21_000; clock.ms += 1000) {
    progress.show({ doneBytes: (clock.ms / 1000) * MIB, totalBytes: 100 * MIB });
  }
  expect(written).toEqual([
    "2 archive: 10 %, 10.0 MiB of 100 MiB, 1.0 MiB/s, 1 min 30 s left\n",
    "2 archive: 20 %, 20.0 MiB of 100 MiB, 1.0 MiB/s, 1 min 20 s left\n",
  ]);
});

test("on a terminal: one line that is written over and goes before the last words", () => {
  const { progress, written, clock } = progressOf({ isTerminal: true });
  clock.ms = 1000;
  progress.show({ doneBytes: 50 * MIB, totalBytes: 100 * MIB });
  progress.done("all is well", {});
  expect(written).toEqual([
    "2 \r\x1b[Karchive [###############...............] 50 %, 50.0 MiB of 100 MiB, 50.0 MiB/s, 1.0 s left",
    "2 \r\x1b[K",
    "2 archive: all is well; 1.0 s\n",
  ]);
});

test("as JSON: events on standard output, each a line, also when quiet", () => {
  const { progress, written, clock } = progressOf({ isJson: true, isQuiet: true });
  clock.ms = 2000;
  progress.show({ doneBytes: 4, totalBytes: 8 });
  progress.done("x", { objects: 3 });
  expect(written).toEqual([
    '1 {"event":"progress","done_bytes":4,"total_bytes":8,"bytes_per_second":2}\n',
    '1 {"event":"done","objects":3,"seconds":2}\n',
  ]);
});

test("quiet: nothing, but what is wrong", () => {
  const { progress, written, clock } = progressOf({ isQuiet: true });
  clock.ms = 60_000;
  progress.show({ doneBytes: 4, totalBytes: 8 });
  progress.done("x", {});
  expect(written).toEqual([]);
  progress.tell("bad", {});
  expect(written).toEqual(["2 bad\n"]);
});

test("where the log is JSON each line of standard error is an object, on a terminal too", () => {
  setLogFormat("json");
  try {
    const { progress, written, clock } = progressOf({ isTerminal: true });
    clock.ms = 10_000;
    progress.show({ doneBytes: 50 * MIB, totalBytes: 100 * MIB });
    const bad = { stripe: null, code: "E_SCRUB", message: "is not whole" };
    progress.tell("bad E_SCRUB: is not whole", { event: "bad", ...bad });
    progress.done("all is well", { archive: "/a", objects: 3, dry_run: false });
    const events = written.map((line) => JSON.parse(line.slice("2 ".length)));
    expect(events).toMatchObject([
      {
        level: "info",
        message: "archive: progress",
        fields: { done_bytes: 50 * MIB, total_bytes: 100 * MIB, bytes_per_second: 5 * MIB },
      },
      { level: "error", message: "bad E_SCRUB: is not whole", fields: { code: "E_SCRUB" } },
      {
        level: "info",
        message: "archive: done",
        fields: { archive: "/a", objects: 3, dry_run: false, seconds: 10 },
      },
    ]);
    expect(written.join("")).not.toContain("\x1b");
  } finally {
    setLogFormat("text");
  }
});

test("nothing to do is all done", () => {
  const { progress, written, clock } = progressOf({});
  clock.ms = 10_000;
  progress.show({ doneBytes: 0, totalBytes: 0 });
  expect(written).toEqual(["2 archive: 100 %, 0 B of 0 B, 0 B/s\n"]);
});

test("amounts and times have a unit that fits", () => {
  expect([0, 1023, 1024, 1536 * 1024, 5e12].map(quantityText)).toEqual([
    "0 B",
    "1023 B",
    "1.0 KiB",
    "1.5 MiB",
    "4.5 TiB",
  ]);
  expect([0.04, 12.4, 59.7, 3599, 7320].map(durationText)).toEqual([
    "0.0 s",
    "12 s",
    "1 min 0 s",
    "59 min 59 s",
    "2 h 2 min",
  ]);
});
