/** Changes an archive in place without touching what it holds: removes orphans, gives it another KEK. */
import { encodeMetadata, METADATA_KEY, openArchive } from "../archive/archive-manifest.ts";
import { INCOMPLETE_FOLDER } from "../archive/filesystem-store.ts";
import type { ObjectStore, StoreDescription } from "../archive/object-store.ts";
import { openStore } from "../archive/open-store.ts";
import { UbiError } from "../errors.ts";
import { type ArchivePlace, hashInKey, namesOf } from "./archive-check.ts";
import { ownerOf, RUN_KEY, readRunFile } from "./archive-run-file.ts";

export interface PruneOptions extends ArchivePlace {
  /** Nothing is removed. */
  readonly isDry: boolean;
  /** Gives up a run that was cut off, which could be resumed. */
  readonly isRunGivenUp: boolean;
}

export interface PruneSummary {
  readonly objects: number;
  readonly bytes: number;
  /** Files of writes that were cut off, and copies of a manifest. */
  readonly leftovers: number;
  readonly isRunGivenUp: boolean;
}

/**
 * Removes objects that the archive does not name. The archive must open first: without its map nobody can tell what
 * is needed.
 * @throws UbiError E_ARCHIVE*, E_ARCHIVE_RUN, E_STORE
 */
export async function pruneArchive(options: PruneOptions): Promise<PruneSummary> {
  const { isDry, signal } = options;
  await using reader = await openStore({ ...options.source, role: "read" });
  const manifest = await openArchive(reader, options.kek, signal);
  await using store = await openStore({ ...options.source, role: isDry ? "read" : "write" });
  const isRunThere = await checkRun(store, options);
  const { names } = namesOf(manifest);
  let [objects, bytes, leftovers] = [0, 0, 0];
  for await (const { key, sizeBytes } of store.list("data/", { signal })) {
    const hash = hashInKey(key);
    if (hash !== undefined && !names.isExisting(hash)) {
      await remove(store, key, options);
      objects += 1;
      bytes += sizeBytes;
    }
  }
  for (const prefix of LEFTOVER_PREFIXES) {
    for await (const { key } of store.list(prefix, { signal })) {
      await remove(store, key, options);
      leftovers += 1;
    }
  }
  if (isRunThere) {
    await remove(store, RUN_KEY, options);
  }
  if (!isDry) {
    await store.sync();
  }
  return { objects, bytes, leftovers, isRunGivenUp: isRunThere };
}

export interface RekeyOptions extends ArchivePlace {
  /** Of the archive from here on; undefined stores the keys in the clear. */
  readonly newKek: Uint8Array | undefined;
  /** The same place, opened for writing with the credentials of the new document. */
  readonly target: StoreDescription;
}

/**
 * Wraps the keys of the archive anew. One object changes, `metadata.json`, in one step; then the archive is opened
 * as its readers will.
 * @throws UbiError E_ARCHIVE*, E_ARCHIVE_RUN, E_STORE
 */
export async function rekeyArchive(options: RekeyOptions): Promise<void> {
  const { signal, kek, newKek } = options;
  await using reader = await openStore({ ...options.source, role: "read" });
  const { stripeSectors, compression, xtsKey, hmacKey } = await openArchive(reader, kek, signal);
  await using store = await openStore(options.target);
  if (store.name !== reader.name) {
    throw new UbiError(
      "E_ARCHIVE",
      `the target is ${store.name}, but the archive lies in ${reader.name}; name the same place in both documents`,
    );
  }
  const run = await readRunFile(store, signal);
  if (run !== undefined) {
    throw new UbiError(
      "E_ARCHIVE_RUN",
      `a run in ${store.name} has not ended (${ownerOf(run).text}) and needs the old key; ` +
        "resume it, or give it up with archive prune --discard-run",
    );
  }
  const keys = { xtsKey, hmacKey };
  await store.put(METADATA_KEY, encodeMetadata({ stripeSectors, compression, keys, kek: newKek }));
  await store.sync();
  await openArchive(store, newKek, signal);
}

// --- internal ---

/** Only looked at when the archive opens: then nobody needs the copies of an older manifest. */
const LEFTOVER_PREFIXES = [`${INCOMPLETE_FOLDER}/`, "previous-"];

/** Whether there is a run that may be given up. @throws UbiError E_ARCHIVE_RUN */
async function checkRun(store: ObjectStore, options: PruneOptions): Promise<boolean> {
  const run = await readRunFile(store, options.signal);
  if (run === undefined) {
    return false;
  }
  const { state, text } = ownerOf(run);
  if (state === "running") {
    throw new UbiError(
      "E_ARCHIVE_RUN",
      `a run is writing to ${store.name}: ${text}; wait for its end`,
    );
  }
  if (!options.isRunGivenUp) {
    const what = state === "dead" ? "was cut off" : "has not ended, or was cut off";
    throw new UbiError(
      "E_ARCHIVE_RUN",
      `a run in ${store.name} ${what}: ${text}; resume it with archive --resume, or give it up with --discard-run`,
    );
  }
  return true;
}

async function remove(store: ObjectStore, key: string, options: PruneOptions): Promise<void> {
  if (!options.isDry) {
    await store.remove(key, { signal: options.signal });
  }
}
