import { expect, test } from "bun:test";
import { ReadAhead } from "./read-ahead.ts";

test("demands that go upwards bring twice as much each time, up to the window", () => {
  const ahead = new ReadAhead(4);
  expect(noted(ahead, 10)).toEqual([]);
  expect(noted(ahead, 11)).toEqual([12]);
  expect(noted(ahead, 13)).toEqual([14, 15]);
  expect(noted(ahead, 16)).toEqual([17, 18, 19, 20]);
  expect(noted(ahead, 21)).toEqual([22, 23, 24, 25]);
});

test("a demand for what is being brought already brings nothing more", () => {
  const ahead = new ReadAhead(8);
  noted(ahead, 10);
  noted(ahead, 11);
  noted(ahead, 13);
  expect(noted(ahead, 14)).toEqual([]);
  expect(noted(ahead, 15)).toEqual([]);
  expect(noted(ahead, 16)).toEqual([17, 18, 19, 20]);
});

test("random demands bring nothing, and a stream that is left begins anew", () => {
  const ahead = new ReadAhead(8);
  expect([50, 7, 93, 31, 72].flatMap((stripe) => noted(ahead, stripe))).toEqual([]);
  noted(ahead, 32);
  expect(noted(ahead, 90)).toEqual([]);
  expect(noted(ahead, 91)).toEqual([92]);
});

test("streams that alternate are followed each by itself", () => {
  const ahead = new ReadAhead(8);
  noted(ahead, 100);
  noted(ahead, 500);
  expect(noted(ahead, 101)).toEqual([102]);
  expect(noted(ahead, 501)).toEqual([502]);
  expect(noted(ahead, 103)).toEqual([104, 105]);
  expect(noted(ahead, 503)).toEqual([504, 505]);
});

test("a window of nothing brings nothing", () => {
  const ahead = new ReadAhead(0);
  expect([1, 2, 3, 4].flatMap((stripe) => noted(ahead, stripe))).toEqual([]);
});

function noted(ahead: ReadAhead, stripe: number): readonly number[] {
  ahead.note(stripe);
  return Array.from({ length: ahead.count }, (_, i) => ahead.first + i);
}
