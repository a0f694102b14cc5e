import { expect, test } from "bun:test";
import { mkdtempSync, openSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { XtsCipher } from "../disk/cipher.ts";
import { contentMark, fileMark } from "./disk-mark.ts";

test("a file is known again whoever opens it; another one is another", () => {
  const folder = mkdtempSync(join(tmpdir(), "disk-mark-"));
  const open = (name: string) => fileMark(openSync(join(folder, name), "w"));
  const [first, second, other] = [open("a"), open("a"), open("b")];
  rmSync(folder, { recursive: true });
  expect(second).toBe(first);
  expect(other).not.toBe(first);
});

test("content is another with another key, without one, and with metadata", () => {
  using cipher = XtsCipher.create(new Uint8Array(64).fill(1).fill(2, 32));
  using same = XtsCipher.create(new Uint8Array(64).fill(1).fill(2, 32));
  using other = XtsCipher.create(new Uint8Array(64).fill(1).fill(3, 32));
  const fd = openSync("/dev/null", "r");
  const marks = [
    contentMark(cipher, undefined),
    contentMark(other, undefined),
    contentMark(undefined, undefined),
    contentMark(cipher, fd),
  ];
  expect(new Set(marks).size).toBe(marks.length);
  expect(contentMark(same, undefined)).toBe(contentMark(cipher, undefined));
});
