/** Cutting a stream into lines, whatever pieces it comes in. */
import { expect, test } from "bun:test";
import fc from "fast-check";
import { LINE_BYTES_MAX, LineReader } from "./line-reader.ts";

const NEWLINE = 10;

test("lines in one piece: each comes out without its newline, the rest stays", () => {
  const reader = new LineReader();
  reader.push(bytes("one\n\ntwo\nthr"));
  expect(allLines(reader)).toEqual(["one", "", "two"]);
  expect(reader.pendingBytes).toBe(3);
  reader.push(bytes("ee\n"));
  expect(allLines(reader)).toEqual(["three"]);
  expect(reader.pendingBytes).toBe(0);
});

test("last: gives what follows the last newline, once", () => {
  const reader = new LineReader();
  reader.push(bytes("one\ntwo"));
  expect(allLines(reader)).toEqual(["one"]);
  expect(textOf(reader.last())).toBe("two");
  expect(reader.last()).toBeUndefined();
});

test("line of exactly the limit: it is read", () => {
  const reader = new LineReader();
  reader.push(bytes(`${"x".repeat(LINE_BYTES_MAX)}\n`));
  expect(allLines(reader)).toEqual(["x".repeat(LINE_BYTES_MAX)]);
});

test("line above the limit in one piece: told once, the next line is read", () => {
  const reader = new LineReader();
  reader.push(bytes(`${"x".repeat(LINE_BYTES_MAX + 1)}\nnext\n`));
  expect(allLines(reader)).toEqual(["(too long)", "next"]);
});

test("line above the limit in many pieces: told once, before its end, and not kept", () => {
  const reader = new LineReader();
  const told: string[] = [];
  let pendingBytesMax = 0;
  for (let i = 0; i < 1000; i++) {
    reader.push(bytes("x".repeat(1000)));
    told.push(...allLines(reader));
    pendingBytesMax = Math.max(pendingBytesMax, reader.pendingBytes);
  }
  expect(told).toEqual(["(too long)"]);
  expect(pendingBytesMax).toBeLessThanOrEqual(LINE_BYTES_MAX);
  reader.push(bytes("the end of it\nnext\n"));
  expect(allLines(reader)).toEqual(["next"]);
});

test("too long without an end: nothing is left at the end of the stream", () => {
  const reader = new LineReader();
  reader.push(bytes("x".repeat(LINE_BYTES_MAX + 1)));
  expect(allLines(reader)).toEqual(["(too long)"]);
  reader.push(bytes("xyz"));
  expect(allLines(reader)).toEqual([]);
  expect(reader.last()).toBeUndefined();
});

test("any bytes in any pieces: the lines are those of the whole", () => {
  const line = fc.uint8Array({ maxLength: 300 }).map((all) => all.filter((x) => x !== NEWLINE));
  const cuts = fc.array(fc.integer({ min: 1, max: 700 }), { minLength: 1, maxLength: 40 });
  fc.assert(
    fc.property(fc.array(line, { maxLength: 20 }), line, cuts, (lines, rest, sizes) => {
      const stream = Buffer.concat([
        ...lines.flatMap((each) => [each, Uint8Array.of(NEWLINE)]),
        rest,
      ]);
      const reader = new LineReader();
      const found: string[] = [];
      let offset = 0;
      for (let i = 0; offset < stream.length; i++) {
        const size = sizes[i % sizes.length] ?? 1;
        reader.push(stream.subarray(offset, offset + size));
        offset += size;
        found.push(...allLines(reader, "latin1"));
      }
      expect(found).toEqual(lines.map((each) => Buffer.from(each).toString("latin1")));
      expect(textOf(reader.last(), "latin1") ?? "").toBe(Buffer.from(rest).toString("latin1"));
    }),
  );
});

// --- internal ---

function bytes(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

function allLines(reader: LineReader, encoding: BufferEncoding = "utf8"): readonly string[] {
  const lines: string[] = [];
  for (let line = reader.next(); line !== undefined; line = reader.next()) {
    lines.push(textOf(line, encoding) ?? "");
  }
  return lines;
}

function textOf(
  line: ReturnType<LineReader["next"]>,
  encoding: BufferEncoding = "utf8",
): string | undefined {
  if (line === undefined) {
    return undefined;
  }
  return line.kind === "too_long" ? "(too long)" : Buffer.from(line.bytes).toString(encoding);
}
