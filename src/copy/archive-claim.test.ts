/** Who may change an archive: one at a time, whatever the store can do for it. */
import { describe, expect, test } from "bun:test";
import { newArchiveKeys } from "../archive/archive-keys.ts";
import { FakeStore } from "../archive/fake-store.ts";
import { type ClaimOptions, StoreClaim } from "./archive-claim.ts";
import { encodeRunFile, encodeUpkeepFile, newToken, RUN_KEY } from "./archive-run-file.ts";

const signal = new AbortController().signal;
const RUN = {
  parameters: { stripeSectors: 128, compression: { kind: "none" }, isEncrypted: true },
  keys: newArchiveKeys(true),
} as const;

const claim = (store: FakeStore, more: Partial<ClaimOptions> = {}) =>
  StoreClaim.open(store, { takeOver: undefined, signal, settleMs: 30, ...more });
const begin = (each: StoreClaim) => each.begin(encodeUpkeepFile("prune", each.token), signal);

/** As it would be written by another process. */
function runFile(changes: Readonly<Record<string, string>>, token = newToken()): Uint8Array {
  const content: object = JSON.parse(
    new TextDecoder().decode(encodeRunFile(RUN, undefined, token)),
  );
  return new TextEncoder().encode(JSON.stringify({ ...content, ...changes }));
}

describe.each(["kept", "refused", "ignored"] as const)("conditions are %s", (conditions) => {
  test("two at the same time: one of them has the place", async () => {
    const store = new FakeStore();
    store.conditions = conditions;
    const both = await Promise.all([claim(store), claim(store)]);
    const ends = await Promise.allSettled(both.map(begin));
    expect(ends.map((end) => end.status).sort()).toEqual(["fulfilled", "rejected"]);
    expect(ends.find((end) => end.status === "rejected")).toMatchObject({
      reason: { code: "E_ARCHIVE_RUN" },
    });
  });

  test("two that take over a run that was cut off: one of them has the place", async () => {
    const store = new FakeStore();
    store.conditions = conditions;
    store.objects.set(RUN_KEY, runFile({ boot_id: "another" }));
    const both = await Promise.all([claim(store), claim(store)]);
    const ends = await Promise.allSettled(both.map(begin));
    expect(ends.map((end) => end.status).sort()).toEqual(["fulfilled", "rejected"]);
  });

  test("who comes later is refused until the first has ended", async () => {
    const store = new FakeStore();
    store.conditions = conditions;
    const first = await claim(store);
    await begin(first);
    await expect(claim(store)).rejects.toThrow("archive prune is at work on fake store");
    await first.end();
    await begin(await claim(store));
  });
});

test("a place that is locked is refused, whatever its object says", async () => {
  const store = new FakeStore();
  store.lockResult = "busy";
  await expect(claim(store)).rejects.toMatchObject({ code: "E_ARCHIVE_RUN" });
});

test("a run on another machine is taken over only by its name", async () => {
  const store = new FakeStore();
  const token = newToken();
  store.objects.set(RUN_KEY, runFile({ host: "another" }, token));
  await expect(claim(store)).rejects.toThrow(`--take-over ${token}`);
  await expect(claim(store, { takeOver: newToken() })).rejects.toThrow("--take-over");
  const taken = await claim(store, { takeOver: token });
  expect(taken.isTakenOver).toBe(true);
  await begin(taken);
});

test.each([undefined, encodeUpkeepFile("prune", newToken())])(
  "a run that is not there cannot be taken over",
  async (file) => {
    const store = new FakeStore();
    store.objects.set("metadata.json", new Uint8Array(1));
    if (file !== undefined) {
      store.objects.set(RUN_KEY, file);
    }
    await expect(claim(store, { takeOver: "123" })).rejects.toThrow("no run 123 in fake store; ");
  },
);

test("a container of this machine with its own processes counts as another machine", async () => {
  const store = new FakeStore();
  store.objects.set(RUN_KEY, runFile({ pid_namespace: "pid:[1]" }));
  await expect(claim(store)).rejects.toThrow("another machine");
});

test("the answer to a first try was lost: the object that is there is one's own", async () => {
  const store = new FakeStore();
  const lost = await claim(store);
  store.objects.set(RUN_KEY, encodeUpkeepFile("prune", lost.token));
  await begin(lost);
});

test("prune that was cut off is in nobody's way", async () => {
  const store = new FakeStore();
  store.objects.set(RUN_KEY, runFile({ kind: "prune", boot_id: "another" }));
  const next = await claim(store);
  expect(next.unfinished).toBeUndefined();
  await begin(next);
});
