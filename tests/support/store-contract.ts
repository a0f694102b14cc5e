/** What every store must do: run by tests/contract and, against a real service, by tests/e2e. */
import { expect, test } from "bun:test";
import type { ObjectStore } from "../../src/archive/object-store.ts";
import { UbiError } from "../../src/errors.ts";

type Check = (name: string, body: (store: ObjectStore) => Promise<void>) => void;

/** `open` gives a store of its own place: nothing is in it unless the same test put it there. */
export function storeContract(
  kind: string,
  open: () => Promise<ObjectStore>,
  declareTest: (name: string, body: () => Promise<void>, timeoutMs?: number) => void = test,
): void {
  const check: Check = (name, body) => {
    const run = async () => {
      await using store = await open();
      await body(store);
    };
    declareTest(`${kind}: ${name}`, run, 60_000);
  };
  checkContent(check);
  checkNames(check);
  checkConduct(check);
}

function checkContent(check: Check): void {
  check("an object that was put is read back", async (store) => {
    await store.put("data/0a", bytesOf(1000, 1));
    expect(await store.get("data/0a", { lengthMax: 1000 })).toEqual(bytesOf(1000, 1));
  });

  check("an object of no bytes is an object", async (store) => {
    await store.put("empty", new Uint8Array(0));
    expect(await store.get("empty", { lengthMax: 10 })).toEqual(new Uint8Array(0));
    expect(await store.sizeOf("empty")).toBe(0);
  });

  check("an object of some MiB is read back whole", async (store) => {
    const large = bytesOf(5 * 2 ** 20 + 3, 2);
    await store.put("large", large);
    const read = await store.get("large", { lengthMax: large.length });
    expect(read === undefined ? -1 : Buffer.compare(read, large)).toBe(0);
  });

  check("a second put replaces the object, also by a shorter one", async (store) => {
    await store.put("metadata.json", bytesOf(100, 1));
    await store.put("metadata.json", bytesOf(10, 2));
    expect(await store.get("metadata.json", { lengthMax: 100 })).toEqual(bytesOf(10, 2));
  });

  check("objects that are put together are all there, and replace", async (store) => {
    await store.put("one", bytesOf(100, 1));
    const objects = [
      { key: "one", bytes: bytesOf(10, 2) },
      { key: "data/two", bytes: bytesOf(20, 3) },
    ];
    await store.putAll(objects);
    for (const { key, bytes } of objects) {
      expect(await store.get(key, { lengthMax: 100 })).toEqual(bytes);
    }
  });

  check(
    "a put that is not to replace leaves what is there, or says that it cannot",
    async (store) => {
      const first = await store.putNew("run", bytesOf(10, 1));
      expect(["put", "unsupported"]).toContain(first);
      if (first === "put") {
        expect(await store.putNew("run", bytesOf(20, 2))).toBe("exists");
        expect(await store.get("run", { lengthMax: 20 })).toEqual(bytesOf(10, 1));
        expect(await listed(store, "")).toEqual([["run", 10]]);
      } else {
        expect(await store.sizeOf("run")).toBeUndefined();
      }
    },
  );

  check("an object that is not there is undefined, not an error", async (store) => {
    expect(await store.get("data/none", { lengthMax: 10 })).toBeUndefined();
    expect(await store.sizeOf("data/none")).toBeUndefined();
  });

  check("an object longer than the limit is refused", async (store) => {
    await store.put("long", bytesOf(101, 1));
    expect(await codeOf(store.get("long", { lengthMax: 100 }))).toBe("E_STORE_OBJECT");
  });

  check("an object holds the bytes that were put, and no others of that length", async (store) => {
    await store.put("data/7", bytesOf(700, 7));
    expect(await store.holds("data/7", bytesOf(700, 7))).toBe(true);
    expect(await store.holds("data/7", bytesOf(700, 8))).toBe(false);
    expect(await store.holds("data/7", bytesOf(699, 7))).toBe(false);
    expect(await store.holds("data/8", bytesOf(700, 7))).toBe(false);
  });

  check("sizes are told without the content", async (store) => {
    await store.put("data/5", bytesOf(12_345, 5));
    expect(await store.sizeOf("data/5")).toBe(12_345);
  });
}

function checkNames(check: Check): void {
  check("a list holds all objects of its prefix with their sizes", async (store) => {
    for (let i = 0; i < 8; i++) {
      await store.put(`data/${i}`, bytesOf(i, i));
    }
    await store.put("metadata.json", bytesOf(3, 0));
    await store.put("database", bytesOf(4, 0));
    const expected = Array.from({ length: 8 }, (_, i) => [`data/${i}`, i] as const);
    expect(await listed(store, "data/")).toEqual(expected);
    expect(await listed(store, "data")).toEqual([...expected, ["database", 4]]);
    expect(await listed(store, "none")).toEqual([]);
    expect((await listed(store, "")).length).toBe(10);
  });

  check("a removed object is gone; removing it again is no error", async (store) => {
    await store.put("data/1", bytesOf(1, 1));
    await store.remove("data/1");
    await store.remove("data/1");
    expect(await store.sizeOf("data/1")).toBeUndefined();
    expect(await listed(store, "")).toEqual([]);
  });
}

function checkConduct(check: Check): void {
  check("a signal that was given already ends every operation", async (store) => {
    await store.put("here", bytesOf(1, 1));
    const reason = new Error("the test's reason");
    const signal = AbortSignal.abort(reason);
    expect(await reasonOf(store.get("here", { lengthMax: 1, signal }))).toBe(reason);
    expect(await reasonOf(store.put("there", bytesOf(1, 1), { signal }))).toBe(reason);
    expect(await reasonOf(store.sizeOf("here", { signal }))).toBe(reason);
    expect(await reasonOf(store.remove("here", { signal }))).toBe(reason);
    expect(await reasonOf(Array.fromAsync(store.list("", { signal })))).toBe(reason);
    expect(await listed(store, "")).toEqual([["here", 1]]);
  });

  check("many operations at a time all succeed", async (store) => {
    const keys = Array.from({ length: 40 }, (_, i) => `data/${100 + i}`);
    await Promise.all(keys.map((key, i) => store.put(key, bytesOf(3000 + i, i))));
    await store.sync();
    const read = await Promise.all(keys.map((key) => store.get(key, { lengthMax: 4000 })));
    expect(read).toEqual(keys.map((_, i) => bytesOf(3000 + i, i)));
  });

  check("a key that leads elsewhere is never used", async (store) => {
    for (const key of ["../up", "a/../b", "/root", "a//b", "", "a/", "./a", "a b", "a\0b"]) {
      expect(await reasonOf(store.get(key, { lengthMax: 1 }))).toHaveProperty(
        "name",
        "AssertionError",
      );
      expect(await reasonOf(store.put(key, bytesOf(1, 1)))).toHaveProperty(
        "name",
        "AssertionError",
      );
    }
  });
}

/** Bytes that tell which they are. */
export function bytesOf(length: number, seed: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => (i * 31 + seed * 7 + (i >> 8)) & 0xff);
}

/** Key and size of each, sorted by key. */
export async function listed(
  store: ObjectStore,
  prefix: string,
): Promise<readonly (readonly [string, number])[]> {
  const entries = await Array.fromAsync(store.list(prefix));
  return entries
    .map(({ key, sizeBytes }) => [key, sizeBytes] as const)
    .sort(([a], [b]) => (a < b ? -1 : 1));
}

/** What a promise is rejected with. */
export async function reasonOf(promise: Promise<unknown>): Promise<unknown> {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  return "nothing was thrown";
}

export async function codeOf(promise: Promise<unknown>): Promise<string> {
  const reason = await reasonOf(promise);
  return reason instanceof UbiError ? reason.code : String(reason);
}
