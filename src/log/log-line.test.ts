import { expect, test } from "bun:test";
import { fatalLine, type LogEvent, logLine, oneLine } from "./log-line.ts";

const TEXT = { isJson: false, isJournal: false };
const JOURNAL = { isJson: false, isJournal: true };
const JSON_LINE = { isJson: true, isJournal: false };

const eventOf = (parts: Partial<LogEvent>): LogEvent => ({
  level: "warn",
  message: "a stripe failed",
  fields: { stripe: 17, cause: "EIO (input/output error)" },
  thread: "stripes",
  timeMs: Date.UTC(2026, 2, 1, 12, 0, 0, 7),
  ...parts,
});

test("text has the level, the message and its fields, those with blanks in quotes", () => {
  expect(logLine(eventOf({}), TEXT)).toBe(
    '[WARN ] a stripe failed stripe=17 cause="EIO (input/output error)"\n',
  );
});

test.each([
  ["error", "<3>"],
  ["warn", "<4>"],
  ["info", "<6>"],
  ["debug", "<7>"],
] as const)(
  "for the journal %s is the priority %s, and no level is in brackets",
  (level, priority) => {
    expect(logLine(eventOf({ level, fields: undefined }), JOURNAL)).toBe(
      `${priority}a stripe failed\n`,
    );
  },
);

test("JSON is one object with time, level, message, thread and fields", () => {
  expect(JSON.parse(logLine(eventOf({}), JSON_LINE))).toEqual({
    time: "2026-03-01T12:00:00.007Z",
    level: "warn",
    message: "a stripe failed",
    thread: "stripes",
    fields: { stripe: 17, cause: "EIO (input/output error)" },
  });
});

test("JSON for the journal has its priority as well", () => {
  const line = logLine(eventOf({ fields: undefined }), { isJson: true, isJournal: true });
  expect(line).toStartWith('<4>{"time":"');
  expect(line).not.toContain("fields");
});

test("JSON gives a name back as it is", () => {
  const name = "x\n\u007f\u009b\\u009b";
  expect(JSON.parse(logLine(eventOf({ fields: { name } }), JSON_LINE)).fields).toEqual({ name });
});

test.each([TEXT, JOURNAL, JSON_LINE])("a name with newlines makes no second line: %j", (style) => {
  const hostile = "x\n<0>forged\u001b[2J\u007f\u009b2J";
  const line = logLine(eventOf({ message: hostile, fields: { name: hostile } }), style);
  expect(line.indexOf("\n")).toBe(line.length - 1);
  expect(line.trimEnd()).not.toMatch(/\p{Cc}/u);
});

test("each line of a stack has the priority of an error in the journal", () => {
  const text = "ubiblk: internal error: x\n    at y";
  const line = fatalLine(eventOf({ level: "error" }), text, JOURNAL);
  expect(line).toBe("<3>ubiblk: internal error: x\n<3>    at y\n");
});

test("as JSON the text for people is left out", () => {
  const event = eventOf({ level: "error", fields: { code: "E_DISK_SIZE" } });
  const line = fatalLine(event, "ubiblk: error E_DISK_SIZE: ...", JSON_LINE);
  expect(JSON.parse(line)).toMatchObject({ level: "error", fields: { code: "E_DISK_SIZE" } });
});

test("no control character reaches a terminal, those of eight bits neither", () => {
  expect(oneLine("a\n\u001b[31m\u007f\u009b31m")).toBe("a\\n\\u001b[31m\\u007f\\u009b31m");
});
