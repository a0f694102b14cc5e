import { expect, test } from "bun:test";
import { inspect } from "node:util";
import { Secret } from "./secret.ts";

const secret = () => new Secret("kek", new Uint8Array([171, 205, 171, 205]));

test("a secret shows its name and never its bytes, however it is printed", () => {
  const texts = [
    String(secret()),
    JSON.stringify({ a: secret() }),
    inspect(secret()),
    inspect({ deep: [secret()] }, { depth: 9, showHidden: true }),
    Bun.inspect(secret()),
  ].join("\n");
  expect(texts).toContain("redacted");
  expect(texts).not.toMatch(/171|205|ab|cd/);
});

test("wiping overwrites the bytes themselves", () => {
  const bytes = new Uint8Array([1, 2, 3]);
  new Secret("k", bytes).wipe();
  expect(bytes).toEqual(new Uint8Array(3));
});

test("leaving the scope wipes", () => {
  const bytes = new Uint8Array([1, 2, 3]);
  {
    using held = new Secret("k", bytes);
    expect(held.length).toBe(3);
  }
  expect(bytes).toEqual(new Uint8Array(3));
});

test("the bytes of a wiped secret cannot be used", () => {
  const wiped = secret();
  wiped.wipe();
  wiped.wipe();
  expect(() => wiped.bytes).toThrow("not used after it was wiped");
});
