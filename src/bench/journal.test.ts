import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import {
  appendFileSync,
  mkdtempSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { JournalWriter, readJournal } from "./journal.ts";

const HEADER = { seed: 7, blockBytes: 4096, offsetBytes: 1048576, blockCount: 4 };
let folder = "";
let path = "";

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ubiblk-journal-"));
  path = join(folder, "journal");
});

afterEach(() => rmSync(folder, { recursive: true }));

describe("journal", () => {
  test("only what ended before an acknowledged flush was sent is flushed", () => {
    using journal = new JournalWriter(path, HEADER, 16);
    journal.sendWrite(0);
    journal.acknowledgeWrite(0);
    journal.sendWrite(1);
    const flush = journal.sendFlush();
    journal.acknowledgeWrite(1); // ended after the flush was sent
    journal.acknowledgeFlush(flush);
    journal.sendWrite(2); // never ends
    journal.commit();

    const history = readJournal(path);

    expect([...history.sent]).toEqual([1, 1, 1, 0]);
    expect([...history.acknowledged]).toEqual([1, 1, 0, 0]);
    expect([...history.flushed]).toEqual([1, 0, 0, 0]);
    expect(history.header).toEqual(HEADER);
  });

  test("a flush that was never acknowledged makes nothing durable", () => {
    using journal = new JournalWriter(path, HEADER, 16);
    journal.sendWrite(3);
    journal.acknowledgeWrite(3);
    journal.sendFlush();
    journal.commit();
    expect([...readJournal(path).flushed]).toEqual([0, 0, 0, 0]);
  });

  test("a torn last record is ignored, and overwritten by the next run", () => {
    const first = new JournalWriter(path, HEADER, 16);
    first.sendWrite(0);
    first.acknowledgeWrite(0);
    first.sendWrite(1);
    first.commit();
    first[Symbol.dispose]();
    truncateSync(path, statSync(path).size - 5);
    using second = new JournalWriter(path, HEADER, 16);
    expect(second.sendWrite(0)).toBe(2);
    second.commit();
    const history = readJournal(path);
    expect([...history.sent]).toEqual([2, 0, 0, 0]);
    expect(history.recordCount).toBe(3);
  });

  test("records behind a damaged one are not believed", () => {
    using journal = new JournalWriter(path, HEADER, 16);
    journal.sendWrite(0);
    journal.commit();
    appendFileSync(path, new Uint8Array(16).fill(1));
    expect(readJournal(path).recordCount).toBe(1);
  });

  test("a journal of another range is refused, and so is any other file", () => {
    new JournalWriter(path, HEADER, 16)[Symbol.dispose]();
    const other = { ...HEADER, blockCount: 5 };
    using journal = new JournalWriter(path, HEADER, 16);
    journal.sendWrite(0);
    journal.commit();
    expect(() => new JournalWriter(path, other, 16)).toThrow("is of another run");
    writeFileSync(path, "hello");
    expect(() => readJournal(path)).toThrow("is not a journal");
  });
});
