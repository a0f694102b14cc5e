/** What is removed from the place of an archive. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { newArchiveKeys } from "../archive/archive-keys.ts";
import {
  encodeMapping,
  encodeMetadata,
  MAPPING_KEY,
  METADATA_KEY,
} from "../archive/archive-manifest.ts";
import { FilesystemStore } from "../archive/filesystem-store.ts";
import { StripeMap } from "../archive/stripe-map.ts";
import { inspectArchive } from "./archive-check.ts";
import { encodeRunFile, encodeUpkeepFile, newToken, RUN_KEY } from "./archive-run-file.ts";
import { type PruneOptions, pruneArchive, rekeyArchive } from "./archive-upkeep.ts";

const OBJECTS = ["0", "1", "2"].map((digit) => `data/${digit.repeat(64)}`);
const signal = new AbortController().signal;
let folder = "";

/** By a process that is there no more. */
const dead = (file: Uint8Array) => {
  const text = new TextDecoder().decode(file);
  return new TextEncoder().encode(text.replace(/"boot_id":"[^"]*"/, '"boot_id":"another"'));
};

const RUN = dead(
  encodeRunFile(
    {
      parameters: { stripeSectors: 128, compression: { kind: "none" }, isEncrypted: false },
      keys: newArchiveKeys(false),
    },
    undefined,
  ),
);

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ubiblk-upkeep-"));
});

afterEach(() => rmSync(folder, { recursive: true }));

const sourceOf = (role: "read" | "write") => ({ kind: "filesystem", path: folder, role }) as const;

async function place(runFile: Uint8Array | undefined, others: readonly string[] = []) {
  await using store = FilesystemStore.open(sourceOf("write"));
  for (const key of [...OBJECTS, ...others]) {
    await store.put(key, new Uint8Array(512));
  }
  if (runFile !== undefined) {
    await store.put(RUN_KEY, runFile);
  }
}

const prune = (options: Partial<PruneOptions> = {}) =>
  pruneArchive({
    source: sourceOf("read"),
    kek: undefined,
    signal,
    isDry: false,
    isRunGivenUp: true,
    takeOver: undefined,
    ...options,
  });

const left = () => readdirSync(join(folder, "data")).length;

describe("a first run that was cut off", () => {
  test("is given up with all its objects", async () => {
    await place(RUN);
    expect(await prune({ isDry: true })).toMatchObject({ objects: 3, isRunGivenUp: true });
    expect(left()).toBe(3);
    expect(await prune()).toMatchObject({ objects: 3, bytes: 1536, isRunGivenUp: true });
    expect(left()).toBe(0);
    expect(readdirSync(folder)).not.toContain(RUN_KEY);
  });

  test("whose removal was cut off as well is removed by another one", async () => {
    await place(dead(encodeUpkeepFile("prune", newToken())));
    await expect(prune({ isRunGivenUp: false })).rejects.toThrow("archive prune --discard-run");
    expect(await prune()).toMatchObject({ objects: 3 });
    expect(readdirSync(folder)).not.toContain(RUN_KEY);
  });

  test("is named, with what to do, by who wants to read an archive", async () => {
    await place(RUN);
    const inspected = inspectArchive({ source: sourceOf("read"), kek: undefined, signal });
    await expect(inspected).rejects.toThrow(
      new RegExp(
        `^no archive in ${folder} yet: a run was cut off there: process ${process.pid} on .*; finish it with archive --resume$`,
      ),
    );
  });
});

test("objects without an archive and without a run are left alone", async () => {
  await place(undefined);
  await expect(prune()).rejects.toThrow("there is no archive in");
  expect(left()).toBe(3);
});

test.each(["metadata.json", "stripe-mapping", "previous-metadata.json"])(
  "with %s there nothing is removed: it is a part of an archive",
  async (key) => {
    await place(RUN, [key]);
    await expect(prune()).rejects.toMatchObject({ code: "E_ARCHIVE" });
    expect(left()).toBe(3);
  },
);

const kekOf = (byte: number) => new Uint8Array(32).fill(byte);

async function placeArchive(kek: Uint8Array | undefined): Promise<Uint8Array> {
  await using store = FilesystemStore.open(sourceOf("write"));
  const keys = newArchiveKeys(false);
  const map = StripeMap.create(1);
  map.setZero(0);
  const metadata = encodeMetadata({
    stripeSectors: 128,
    compression: { kind: "none" },
    keys,
    kek,
  });
  await store.put(METADATA_KEY, metadata);
  const mapping = encodeMapping({ map, stripeSectors: 128, sizeBytes: 65_536, keys });
  await store.put(MAPPING_KEY, mapping);
  return metadata;
}

const rekey = (kek: Uint8Array | undefined, newKek: Uint8Array | undefined) =>
  rekeyArchive({
    source: sourceOf("read"),
    target: sourceOf("write"),
    kek,
    newKek,
    signal,
    takeOver: undefined,
  });

test.each([
  { kek: kekOf(1), said: "archive_kek of [target] is the one that the archive has already" },
  { kek: undefined, said: "neither [archive] nor [target] has an archive_kek" },
])("the key that the archive has already is no new one: $said", async ({ kek, said }) => {
  const before = await placeArchive(kek);
  const refused = rekey(kek, kek?.slice());
  await expect(refused).rejects.toMatchObject({
    code: "E_ARCHIVE_KEY",
    message: `${said}; nothing was changed`,
  });
  expect(readFileSync(join(folder, METADATA_KEY)).equals(before)).toBe(true);
});

test("another key opens the archive from then on", async () => {
  await placeArchive(kekOf(1));
  await rekey(kekOf(1), kekOf(2));
  await inspectArchive({ source: sourceOf("read"), kek: kekOf(2), signal });
});
