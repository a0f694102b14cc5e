/** What is at an archive's target, and how the manifest of a new one is put in its place. */
import { describe, expect, test } from "bun:test";
import { abortableSleep } from "../archive/abortable-wait.ts";
import { type ArchiveKeys, newArchiveKeys } from "../archive/archive-keys.ts";
import {
  encodeMapping,
  encodeMetadata,
  MAPPING_KEY,
  METADATA_KEY,
  openArchive,
} from "../archive/archive-manifest.ts";
import { FakeStore } from "../archive/fake-store.ts";
import { StripeMap } from "../archive/stripe-map.ts";
import { UbiError } from "../errors.ts";
import { StoreClaim } from "./archive-claim.ts";
import { publishManifest } from "./archive-publish.ts";
import {
  encodeRunFile,
  newToken,
  RUN_KEY,
  type RunParameters,
  readRunFile,
} from "./archive-run-file.ts";
import { planTarget, type TargetMode } from "./archive-target.ts";

const KEK = new Uint8Array(32).fill(1);
const PARAMETERS: RunParameters = {
  stripeSectors: 128,
  compression: { kind: "zstd", level: 3 },
  isEncrypted: true,
};
const OTHER: RunParameters = { ...PARAMETERS, compression: { kind: "none" } };
const signal = new AbortController().signal;

function manifestOf(keys: ArchiveKeys, { stripeSectors, compression } = PARAMETERS, kek = KEK) {
  const map = StripeMap.create(3);
  map.setZero(1);
  const metadata = encodeMetadata({ stripeSectors, compression, keys, kek });
  const sizeBytes = 3 * stripeSectors * 512;
  return { metadata, mapping: encodeMapping({ map, stripeSectors, sizeBytes, keys }) };
}

function storeWith(keys: ArchiveKeys, parameters = PARAMETERS): FakeStore {
  const store = new FakeStore();
  const { metadata, mapping } = manifestOf(keys, parameters);
  store.objects.set(METADATA_KEY, metadata);
  store.objects.set(MAPPING_KEY, mapping);
  return store;
}

const plan = (store: FakeStore, mode: TargetMode, parameters = PARAMETERS) =>
  planWith(store, { mode, parameters, kek: KEK, signal });

async function planWith(store: FakeStore, needs: Parameters<typeof planTarget>[1]) {
  return await planTarget(await claimOf(store), needs);
}

const claimOf = (store: FakeStore, takeOver?: string) =>
  StoreClaim.open(store, { takeOver, signal, settleMs: 0 });

/** A run of a process that cannot be there any more. */
function deadRun(keys: ArchiveKeys, parameters = PARAMETERS): Uint8Array {
  const text = new TextDecoder().decode(encodeRunFile({ parameters, keys }, KEK));
  return new TextEncoder().encode(text.replace(/"boot_id":"[^"]*"/, '"boot_id":"another"'));
}

/** A run of this process. */
const runOf = (token: string) =>
  encodeRunFile({ parameters: PARAMETERS, keys: newArchiveKeys(true) }, KEK, token);

describe("the target", () => {
  test("objects without a manifest are no archive", async () => {
    const store = new FakeStore();
    store.objects.set(`data/${"0".repeat(64)}`, new Uint8Array(512));
    expect(await plan(store, "new")).toMatchObject({ previous: "none", mayReuse: false });
  });

  test.each([METADATA_KEY, MAPPING_KEY])("%s alone is enough for a refusal", async (key) => {
    const store = storeWith(newArchiveKeys(true));
    store.objects.delete(key === METADATA_KEY ? MAPPING_KEY : METADATA_KEY);
    await expect(plan(store, "new")).rejects.toMatchObject({ code: "E_ARCHIVE_EXISTS" });
  });

  test("replacing or going on with the same parameters keeps the keys and metadata.json", async () => {
    const keys = newArchiveKeys(true);
    for (const [mode, mayReuse] of [
      ["replace", false],
      ["incremental", true],
    ] as const) {
      const { current, ...planned } = await plan(storeWith(keys), mode);
      expect(current?.hmacKey).toEqual(mayReuse ? keys.hmacKey : undefined);
      const stays = { isMetadataCurrent: true, previous: "none", leavesObjects: false } as const;
      expect(planned).toEqual({ keys, mayReuse, ...stays });
    }
  });

  test("replacing with other parameters takes new keys, going on is refused", async () => {
    const keys = newArchiveKeys(true);
    const planned = await plan(storeWith(keys, OTHER), "replace");
    expect(planned).toMatchObject({ isMetadataCurrent: false, previous: "copy" });
    expect(planned.keys.hmacKey).not.toEqual(keys.hmacKey);
    const refused = plan(storeWith(keys, OTHER), "incremental");
    await expect(refused).rejects.toMatchObject({ code: "E_ARCHIVE_EXISTS" });
  });

  test("a damaged archive can be replaced and not gone on from", async () => {
    const store = storeWith(newArchiveKeys(true));
    store.objects.set(MAPPING_KEY, new TextEncoder().encode("not-cbor"));
    expect(await plan(store, "replace")).toMatchObject({ previous: "copy" });
    await expect(plan(store, "incremental")).rejects.toMatchObject({ code: "E_ARCHIVE_EXISTS" });
  });

  test("a store that fails is no damaged archive: nothing is planned over it", async () => {
    const store = storeWith(newArchiveKeys(true));
    store.failNext("get", 10);
    await expect(plan(store, "replace")).rejects.toMatchObject({ code: "E_STORE" });
  });
});

describe("a run that was cut off", () => {
  test("is gone on with: the same keys, and its objects are of use", async () => {
    const keys = newArchiveKeys(true);
    const store = new FakeStore();
    store.objects.set(RUN_KEY, deadRun(keys));
    expect(await plan(store, "resume")).toMatchObject({ keys, mayReuse: true });
  });

  test("with other parameters is refused", async () => {
    const store = new FakeStore();
    store.objects.set(RUN_KEY, deadRun(newArchiveKeys(true), OTHER));
    await expect(plan(store, "resume")).rejects.toMatchObject({ code: "E_ARCHIVE_RUN" });
  });

  test("between its two objects of the manifest ends with that manifest", async () => {
    const keys = newArchiveKeys(true);
    const store = storeWith(newArchiveKeys(true));
    store.objects.set(METADATA_KEY, manifestOf(keys).metadata);
    store.objects.set(RUN_KEY, deadRun(keys));
    const planned = await plan(store, "resume");
    expect(planned).toMatchObject({ keys, isMetadataCurrent: false, previous: "copy" });
  });

  test("that is still alive is left alone in every mode", async () => {
    const store = new FakeStore();
    const run = encodeRunFile({ parameters: PARAMETERS, keys: newArchiveKeys(true) }, KEK);
    store.objects.set(RUN_KEY, run);
    for (const mode of ["new", "replace", "incremental", "resume"] as const) {
      await expect(plan(store, mode)).rejects.toMatchObject({ code: "E_ARCHIVE_RUN" });
    }
  });

  test.each(["", "{}", "[1]", '{"version":2}', "\u0000"])(
    "with the file %j is refused",
    async (text) => {
      const store = new FakeStore();
      store.objects.set(RUN_KEY, new TextEncoder().encode(text));
      await expect(plan(store, "resume")).rejects.toMatchObject({ code: "E_ARCHIVE_RUN" });
    },
  );

  test("whose keys are wrapped with another KEK is refused", async () => {
    const store = new FakeStore();
    const keys = newArchiveKeys(true);
    const other = new Uint8Array(32).fill(2);
    const text = new TextDecoder().decode(encodeRunFile({ parameters: PARAMETERS, keys }, other));
    store.objects.set(RUN_KEY, new TextEncoder().encode(text.replace(/"pid":\d+/, '"pid":1')));
    await expect(plan(store, "resume")).rejects.toMatchObject({ code: "E_ARCHIVE_KEY" });
  });
});

describe("the exchange of manifests", () => {
  const keys = { old: newArchiveKeys(true), new: newArchiveKeys(true) };
  const opens = async (store: FakeStore, expected: ArchiveKeys) =>
    Buffer.compare((await openArchive(store, KEK)).hmacKey, expected.hmacKey) === 0;

  test("cut off by a loss of power at any call: with kept keys an archive always opens", async () => {
    for (let calls = 1; ; calls += 1) {
      const store = storeWith(keys.old);
      await store.sync();
      const { mapping } = manifestOf(keys.old);
      const isDone = await publishCut(
        store,
        { metadata: undefined, mapping, previous: "none" as const },
        calls,
      );
      store.crash();
      expect(await opens(store, keys.old)).toBe(true);
      if (isDone) {
        return;
      }
    }
  });

  test("a failure at any call, with new keys: the old archive or the new one opens", async () => {
    for (let calls = 1; ; calls += 1) {
      const store = storeWith(keys.old);
      const manifest = { ...manifestOf(keys.new), previous: "copy" as const };
      const hasFailed = await publishFailing(store, manifest, calls);
      const { hmacKey } = await openArchive(store, KEK);
      const isOneOfThem = [keys.old, keys.new].some(
        (each) => Buffer.compare(each.hmacKey, hmacKey) === 0,
      );
      expect(isOneOfThem).toBe(true);
      if (!hasFailed) {
        expect([...store.objects.keys()].sort()).toEqual([METADATA_KEY, MAPPING_KEY]);
        expect(await opens(store, keys.new)).toBe(true);
        return;
      }
    }
  });

  test("killed between the two objects: the copies are reused, not made of the half exchanged pair", async () => {
    const store = storeWith(keys.old);
    const manifest = { ...manifestOf(keys.new), previous: "copy" as const };
    const puts = () => store.calls.filter((call) => call.startsWith("put")).length;
    await publishCut(store, manifest, undefined, () => puts() > 3);
    await expect(openArchive(store, KEK)).rejects.toMatchObject({ code: "E_ARCHIVE_TAMPERED" });
    store.objects.set(RUN_KEY, deadRun(keys.new));
    expect(await plan(store, "resume")).toMatchObject({ previous: "reuse" });
    expect(await plan(store, "replace", OTHER)).toMatchObject({ previous: "reuse" });
    await publishCut(store, { ...manifest, previous: "reuse" }, undefined, () => puts() > 1);
    expect(await copiesOpen(store, keys.old)).toBe(true);
  });

  test("copies that an older run left are made anew when the archive opens", async () => {
    const store = storeWith(keys.old);
    store.objects.set(`previous-${METADATA_KEY}`, manifestOf(newArchiveKeys(true)).metadata);
    store.objects.set(`previous-${MAPPING_KEY}`, new Uint8Array(0));
    expect(await plan(store, "replace", OTHER)).toMatchObject({ previous: "copy" });
    const manifest = { ...manifestOf(keys.new), previous: "copy" as const };
    await publishCut(store, manifest, undefined, () => store.calls.at(-1) === `put ${MAPPING_KEY}`);
    expect(await copiesOpen(store, keys.old)).toBe(true);
  });

  test("neither the archive nor the copies open: nobody can tell which is whole, so nothing is done", async () => {
    const store = storeWith(keys.old);
    store.objects.set(MAPPING_KEY, new Uint8Array(3));
    store.objects.set(`previous-${METADATA_KEY}`, new Uint8Array(3));
    store.objects.set(`previous-${MAPPING_KEY}`, new Uint8Array(3));
    await expect(plan(store, "replace")).rejects.toMatchObject({ code: "E_ARCHIVE_RUN" });
  });

  test("an exchange of the pair that fails for good: what was not exchanged is not put again", async () => {
    const store = storeWith(keys.old);
    const claim = await begunIn(store);
    let puts = 0;
    store.beforeOperation = (operation, key) => {
      puts += operation === "put" && key === MAPPING_KEY ? 1 : 0;
      if (operation === "put" && key === MAPPING_KEY) {
        throw new UbiError("E_STORE", "no space left");
      }
    };
    const manifest = { ...manifestOf(keys.new), previous: "copy" as const };
    const published = publishManifest(claim, manifest, signal);
    await expect(published).rejects.toThrow("the archive is as it was before");
    expect(puts).toBe(1);
    store.beforeOperation = () => {};
    expect(await opens(store, keys.old)).toBe(true);
  });

  test("a signal in the middle of an exchange that hangs: undone when its time is over", async () => {
    const store = storeWith(keys.old);
    const claim = await begunIn(store);
    const controller = new AbortController();
    const reason = new UbiError("E_INTERRUPTED", "the test's signal");
    const { put } = store;
    store.put = async (key, bytes, options = {}) => {
      if (key === MAPPING_KEY) {
        controller.abort(reason);
        await abortableSleep(60_000, options.signal);
      }
      await put.call(store, key, bytes, options);
    };
    const manifest = { ...manifestOf(keys.new), previous: "copy" as const };
    const published = publishManifest(claim, manifest, controller.signal, 20);
    await expect(published).rejects.toMatchObject({ code: "E_INTERRUPTED" });
    expect(await opens(store, keys.old)).toBe(true);
  });

  test("removals that are refused behind the exchange: the archive is there, and its run has ended", async () => {
    const store = storeWith(keys.old);
    const claim = await begunIn(store);
    store.failNext("remove", 100);
    await publishManifest(claim, { ...manifestOf(keys.new), previous: "copy" }, signal);
    expect(await opens(store, keys.new)).toBe(true);
    expect(await readRunFile(store, signal)).toEqual({ kind: "ended" });
    expect((await claimOf(store)).unfinished).toBeUndefined();
  });

  test("a claim that another run took is noticed before anything is exchanged", async () => {
    const store = storeWith(keys.old);
    const claim = await begunIn(store);
    store.objects.set(RUN_KEY, runOf(newToken()));
    const published = publishManifest(claim, { ...manifestOf(keys.new), previous: "copy" }, signal);
    await expect(published).rejects.toMatchObject({ code: "E_ARCHIVE_RUN" });
    expect(await opens(store, keys.old)).toBe(true);
  });

  const copiesOpen = async (store: FakeStore, expected: ArchiveKeys) => {
    const copies = new FakeStore();
    for (const key of [METADATA_KEY, MAPPING_KEY]) {
      copies.objects.set(key, store.objects.get(`previous-${key}`) ?? new Uint8Array());
    }
    return await opens(copies, expected);
  };

  type Manifest = Parameters<typeof publishManifest>[1];

  /** A claim of a store that locks. Its calls do not count. */
  async function begunIn(store: FakeStore): Promise<StoreClaim> {
    store.lockResult = "locked";
    const claim = await claimOf(store);
    await claim.begin(runOf(claim.token), signal);
    store.calls.length = 0;
    return claim;
  }

  /** From some operation on all fail, as for a process that is no more. Whether it came to its end. */
  async function publishCut(
    store: FakeStore,
    manifest: Manifest,
    callsMax: number | undefined,
    isOver = () => store.calls.length > (callsMax ?? Infinity),
  ): Promise<boolean> {
    const claim = await begunIn(store);
    let isCut = false;
    store.beforeOperation = () => {
      isCut ||= isOver();
      if (isCut) {
        throw new Error("killed");
      }
    };
    try {
      await publishManifest(claim, manifest, signal);
      return true;
    } catch {
      return false;
    } finally {
      store.beforeOperation = () => {};
    }
  }

  /** One operation fails, those after it do not. Whether there were so many. */
  async function publishFailing(
    store: FakeStore,
    manifest: Manifest,
    at: number,
  ): Promise<boolean> {
    const claim = await begunIn(store);
    let count = 0;
    store.beforeOperation = () => {
      count += 1;
      if (count === at) {
        throw new Error("failed once");
      }
    };
    await publishManifest(claim, manifest, signal).catch(() => {});
    store.beforeOperation = () => {};
    return count >= at;
  }
});
