import { expect, test } from "bun:test";
import { TagQueue } from "./tag-queue.ts";

test("tags leave in the order in which they came, round after round", () => {
  const queue = new TagQueue(3);
  const left: number[] = [];
  for (let tag = 0; tag < 10; tag++) {
    queue.push(tag);
    queue.push(tag + 100);
    left.push(queue.first, queue.shift(), queue.shift());
  }
  expect(queue.count).toBe(0);
  expect(left).toEqual(Array.from({ length: 10 }, (_, tag) => [tag, tag, tag + 100]).flat());
});
