/** What is at an archive's target, and how the manifest of a new one is put in its place. */
import { describe, expect, test } from "bun:test";
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
import { publishManifest } from "./archive-publish.ts";
import { encodeRunFile, RUN_KEY, type RunParameters } from "./archive-run-file.ts";
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
  planTarget(store, { mode, parameters, kek: KEK, signal });

/** A run of a process that cannot be there any more. */
function deadRun(keys: ArchiveKeys, parameters = PARAMETERS): Uint8Array {
  const text = new TextDecoder().decode(encodeRunFile({ parameters, keys }, KEK));
  return new TextEncoder().encode(text.replace(/"boot_id":"[^"]*"/, '"boot_id":"another"'));
}

describe("the target", () => {
  test("objects without a manifest are no archive", async () => {
    const store = new FakeStore();
    store.objects.set(`data/${"0".repeat(64)}`, new Uint8Array(512));
    expect(await plan(store, "new")).toMatchObject({ isReplacing: false, mayReuse: false });
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
      const planned = await plan(storeWith(keys), mode);
      expect(planned).toEqual({ keys, isMetadataCurrent: true, isReplacing: false, mayReuse });
    }
  });

  test("replacing with other parameters takes new keys, going on is refused", async () => {
    const keys = newArchiveKeys(true);
    const planned = await plan(storeWith(keys, OTHER), "replace");
    expect(planned).toMatchObject({ isMetadataCurrent: false, isReplacing: true });
    expect(planned.keys.hmacKey).not.toEqual(keys.hmacKey);
    const refused = plan(storeWith(keys, OTHER), "incremental");
    await expect(refused).rejects.toMatchObject({ code: "E_ARCHIVE_EXISTS" });
  });

  test("a damaged archive can be replaced and not gone on from", async () => {
    const store = storeWith(newArchiveKeys(true));
    store.objects.set(MAPPING_KEY, new TextEncoder().encode("not-cbor"));
    expect(await plan(store, "replace")).toMatchObject({ isReplacing: true });
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
    expect(planned).toMatchObject({ keys, isMetadataCurrent: false, isReplacing: true });
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
        { metadata: undefined, mapping, isReplacing: false },
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
      const manifest = { ...manifestOf(keys.new), isReplacing: true };
      const isDone = await publishFailing(store, manifest, calls);
      const { hmacKey } = await openArchive(store, KEK);
      const isOneOfThem = [keys.old, keys.new].some(
        (each) => Buffer.compare(each.hmacKey, hmacKey) === 0,
      );
      expect(isOneOfThem).toBe(true);
      if (isDone) {
        expect([...store.objects.keys()].sort()).toEqual([METADATA_KEY, MAPPING_KEY]);
        expect(await opens(store, keys.new)).toBe(true);
        return;
      }
    }
  });

  test("killed between the two objects: both old ones are kept, and a resumed run does not lose them", async () => {
    const store = storeWith(keys.old);
    const manifest = { ...manifestOf(keys.new), isReplacing: true };
    const puts = () => store.calls.filter((call) => call.startsWith("put")).length;
    await publishCut(store, manifest, undefined, () => puts() > 3);
    await expect(openArchive(store, KEK)).rejects.toMatchObject({ code: "E_ARCHIVE_TAMPERED" });
    await publishCut(store, manifest, undefined, () => puts() > 5);
    store.objects.set(
      METADATA_KEY,
      store.objects.get(`previous-${METADATA_KEY}`) ?? new Uint8Array(),
    );
    store.objects.set(
      MAPPING_KEY,
      store.objects.get(`previous-${MAPPING_KEY}`) ?? new Uint8Array(),
    );
    expect(await opens(store, keys.old)).toBe(true);
  });

  type Manifest = Parameters<typeof publishManifest>[1];

  /** From some operation on all fail, as for a process that is no more. Whether it came to its end. */
  async function publishCut(
    store: FakeStore,
    manifest: Manifest,
    callsMax: number | undefined,
    isOver = () => store.calls.length > (callsMax ?? Infinity),
  ): Promise<boolean> {
    let isCut = false;
    store.beforeOperation = () => {
      isCut ||= isOver();
      if (isCut) {
        throw new Error("killed");
      }
    };
    try {
      await publishManifest(store, manifest, signal);
      return true;
    } catch {
      return false;
    } finally {
      store.beforeOperation = () => {};
    }
  }

  /** One operation fails, those after it do not. */
  async function publishFailing(
    store: FakeStore,
    manifest: Manifest,
    at: number,
  ): Promise<boolean> {
    let count = 0;
    store.beforeOperation = () => {
      count += 1;
      if (count === at) {
        throw new Error("failed once");
      }
    };
    try {
      await publishManifest(store, manifest, signal);
      return true;
    } catch {
      return false;
    } finally {
      store.beforeOperation = () => {};
    }
  }
});
