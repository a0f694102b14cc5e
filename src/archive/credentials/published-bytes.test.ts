import { expect, test } from "bun:test";
import { PublishedBytes } from "./published-bytes.ts";

const bytes = (text: string) => new TextEncoder().encode(text);
const textOf = (published: PublishedBytes) => new TextDecoder().decode(published.read()?.bytes);

test("what was published last is read, whole, by whoever shares the memory", () => {
  const published = PublishedBytes.create(10);
  const reader = PublishedBytes.attach(published.shared);
  expect(reader.read()).toBeUndefined();
  for (const text of ["one", "a longer", "x"]) {
    published.publish(bytes(text));
    expect(textOf(reader)).toBe(text);
  }
  expect(reader.version).toBe(3);
});

test("the largest fits, one byte more does not", () => {
  const published = PublishedBytes.create(8);
  published.publish(bytes("12345678"));
  expect(textOf(published)).toBe("12345678");
  expect(() => published.publish(bytes("123456789"))).toThrow("fits its slot");
});

test("nothing is left in memory of what was replaced, or wiped", () => {
  const published = PublishedBytes.create(64);
  const memory = () => Buffer.from(published.shared).toString("latin1");
  published.publish(bytes("the first secret"));
  expect(memory()).toContain("the first secret");
  published.publish(bytes("the second one"));
  expect(memory()).not.toContain("first");
  expect(memory()).toContain("the second one");
  published.wipe();
  expect(memory()).not.toContain("second");
  expect(published.read()).toBeUndefined();
});

test("what is wiped while it is copied is not read, not even a part of it", () => {
  const published = PublishedBytes.create(64);
  published.publish(bytes("a secret of some words"));
  const owner = PublishedBytes.attach(published.shared);
  // The version is looked at before the copy and after it; in between all is wiped.
  const looks = [() => owner.version, () => owner.wipe() ?? owner.version];
  Object.defineProperty(published, "version", { get: () => looks.shift()?.() });
  expect(published.read()).toBeUndefined();
  expect(looks).toEqual([]);
});

test("a reader in another thread never sees a mixture", async () => {
  const published = PublishedBytes.create(4096);
  published.publish(new Uint8Array(4096).fill(1));
  const worker = new Worker(new URL("../../../tests/support/mixture-reader.ts", import.meta.url));
  const answers: unknown[] = [];
  worker.addEventListener("message", ({ data }) => answers.push(data));
  worker.postMessage(published.shared);
  const until = async (count: number) => {
    while (answers.length < count) {
      await Bun.sleep(1);
    }
  };
  await until(1);
  for (let round = 2; round < 3000; round += 1) {
    published.publish(new Uint8Array(1 + ((round * 37) % 4096)).fill(round & 0xff));
    await Bun.sleep(0);
  }
  published.publish(bytes("end"));
  await until(2);
  expect(answers).toEqual(["reading", { mixtures: 0, reads: expect.any(Number) }]);
  worker.terminate();
});
