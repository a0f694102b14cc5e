/** Changes an archive in place without touching what it holds: removes orphans, gives it another KEK. */
import {
  encodeMetadata,
  MAPPING_KEY,
  METADATA_KEY,
  openArchive,
} from "../archive/archive-manifest.ts";
import { INCOMPLETE_FOLDER, isIncompleteKey } from "../archive/filesystem-store.ts";
import type { ObjectStore, StoreDescription } from "../archive/object-store.ts";
import { openStore } from "../archive/open-store.ts";
import { UbiError } from "../errors.ts";
import { type ArchivePlace, hashInKey, namesOf } from "./archive-check.ts";
import { type ClaimOptions, StoreClaim } from "./archive-claim.ts";
import { PREVIOUS } from "./archive-previous.ts";
import { encodeUpkeepFile, ownerOf, RUN_KEY } from "./archive-run-file.ts";
import { hasManifest } from "./archive-target.ts";
import { openFinishedArchive } from "./finished-archive.ts";
import { HashList, ObjectNames } from "./object-names.ts";

export interface PruneOptions extends ArchivePlace {
  /** Nothing is removed. */
  readonly isDry: boolean;
  /** Gives up a run that was cut off, which could be resumed. */
  readonly isRunGivenUp: boolean;
  /** See archive-claim.ts. A run that is named so is given up, too. */
  readonly takeOver: ClaimOptions["takeOver"];
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
 * is needed; but a first run that is given up leaves no archive, and nothing of it is needed. Nothing is removed that
 * is not surely of an archive's writer, nor before all is listed and the map is seen to be the same still.
 * @throws UbiError E_ARCHIVE*, E_ARCHIVE_RUN, E_STORE
 */
export async function pruneArchive(options: PruneOptions): Promise<PruneSummary> {
  const { isDry, signal, source } = options;
  await using store = await openStore({ ...source, role: isDry ? "read" : "write" });
  const claim = await StoreClaim.open(store, options);
  checkUnfinished(claim, options);
  const isRunGivenUp = claim.unfinished !== undefined;
  const found = await findUnneeded(claim, options);
  const { objects, bytes } = found;
  const summary = { objects: objects.count, bytes, isRunGivenUp };
  if (isDry) {
    return { ...summary, leftovers: found.leftovers.length };
  }
  await claim.begin(encodeUpkeepFile("prune", claim.token), signal);
  let isDone = false;
  try {
    // Those that others left meanwhile are of no concern: what is removed was listed before.
    if ((await mappingHash(store, signal)) !== found.mappingHash) {
      const message = `${MAPPING_KEY} in ${store.name} was changed meanwhile; nothing was removed; prune again`;
      throw new UbiError("E_ARCHIVE_RUN", message);
    }
    await claim.check(signal);
    for (let i = 0; i < objects.count; i += 1) {
      await store.remove(`data/${objects.at(i).toHex()}`, { signal });
    }
    for (const key of found.leftovers) {
      await store.remove(key, { signal });
    }
    isDone = true;
  } finally {
    // Without an archive the run object alone tells that what lies there may be removed.
    if (isDone || found.isArchive) {
      await claim.end();
    }
  }
  await store.sync();
  return { ...summary, leftovers: found.leftovers.length };
}

export interface RekeyOptions extends ArchivePlace {
  /** Of the archive from here on; undefined stores the keys in the clear. */
  readonly newKek: Uint8Array | undefined;
  /** The same place, opened for writing with the credentials of the new document. */
  readonly target: StoreDescription;
  readonly takeOver: ClaimOptions["takeOver"];
}

/**
 * Wraps the keys of the archive anew. One object changes, `metadata.json`, in one step; then the archive is opened
 * as its readers will.
 * @throws UbiError E_ARCHIVE*, E_ARCHIVE_RUN, E_STORE
 */
export async function rekeyArchive(options: RekeyOptions): Promise<void> {
  const { signal, kek, newKek } = options;
  await using reader = await openStore({ ...options.source, role: "read" });
  await openFinishedArchive(reader, kek, signal); // before a folder is made of a wrong path
  await using store = await openStore(options.target);
  if (store.name !== reader.name) {
    throw new UbiError(
      "E_ARCHIVE",
      `the target is ${store.name}, but the archive lies in ${reader.name}; name the same place in both documents`,
    );
  }
  refuseSameKey(kek, newKek);
  const claim = await StoreClaim.open(store, options);
  refuseUnfinished(claim);
  await claim.begin(encodeUpkeepFile("rekey", claim.token), signal);
  try {
    const before = await metadataBytes(store, signal);
    const manifest = await openArchive(store, kek, signal);
    const { stripeSectors, compression, xtsKey, hmacKey } = manifest;
    const keys = { xtsKey, hmacKey };
    const metadata = encodeMetadata({ stripeSectors, compression, keys, kek: newKek });
    await claim.check(signal);
    if (Buffer.compare(await metadataBytes(store, signal), before) !== 0) {
      const message = `${METADATA_KEY} in ${store.name} was changed meanwhile and is left as it is; rekey again`;
      throw new UbiError("E_ARCHIVE_RUN", message);
    }
    await store.put(METADATA_KEY, metadata, { isDurable: true });
  } finally {
    await claim.end();
  }
  await store.sync();
  await openArchive(store, newKek, signal);
}

// --- internal ---

interface Unneeded {
  /** Hashes of objects that the map does not name. */
  readonly objects: HashList;
  readonly bytes: number;
  /** Keys of other things that writers left. */
  readonly leftovers: readonly string[];
  /** Of the map that they were compared with. */
  readonly mappingHash: string | undefined;
  /** False where a first run left objects, and nothing names them. */
  readonly isArchive: boolean;
}

async function findUnneeded(claim: StoreClaim, options: PruneOptions): Promise<Unneeded> {
  const { store } = claim;
  const { kek, signal } = options;
  const hash = await mappingHash(store, signal); // first: a map that is exchanged while it is read shows then
  const isArchive = !(await isRuin(claim, options));
  const names = isArchive
    ? namesOf(await openFinishedArchive(store, kek, signal)).names
    : ObjectNames.create(0, new HashList());
  const objects = new HashList();
  let bytes = 0;
  for await (const { key, sizeBytes } of store.list("data/", { signal })) {
    const name = hashInKey(key);
    if (name !== undefined && !names.isExisting(name)) {
      objects.add(name.toHex());
      bytes += sizeBytes;
    }
  }
  const leftovers: string[] = [];
  for await (const { key } of store.list(`${INCOMPLETE_FOLDER}/`, { signal })) {
    if (isIncompleteKey(key)) {
      leftovers.push(key);
    }
  }
  for (const { copy } of PREVIOUS) {
    if ((await store.sizeOf(copy, { signal })) !== undefined) {
      leftovers.push(copy); // the archive opens: nobody needs an older manifest
    }
  }
  return { objects, bytes, leftovers, mappingHash: hash, isArchive };
}

/** A run was cut off, or the removal of what it left, before there was an archive; and it is given up. */
async function isRuin(claim: StoreClaim, options: PruneOptions): Promise<boolean> {
  const { store, isTakenOver, isObjectThere } = claim;
  const { isRunGivenUp, signal } = options;
  if (!isObjectThere || !(isRunGivenUp || isTakenOver) || (await hasManifest(store, signal))) {
    return false;
  }
  const copies = PREVIOUS.map(({ copy }) => store.sizeOf(copy, { signal }));
  return (await Promise.all(copies)).every((size) => size === undefined);
}

async function mappingHash(
  store: ObjectStore,
  signal: AbortSignal | undefined,
): Promise<string | undefined> {
  const lengthMax = await store.sizeOf(MAPPING_KEY, { signal });
  const bytes =
    lengthMax === undefined ? undefined : await store.get(MAPPING_KEY, { lengthMax, signal });
  return bytes === undefined
    ? undefined
    : new Bun.CryptoHasher("sha256").update(bytes).digest("hex");
}

async function metadataBytes(store: ObjectStore, signal: AbortSignal): Promise<Uint8Array> {
  const lengthMax = (await store.sizeOf(METADATA_KEY, { signal })) ?? 0;
  return (await store.get(METADATA_KEY, { lengthMax, signal })) ?? new Uint8Array(0);
}

/** @throws UbiError E_ARCHIVE_RUN for a run that may not be given up */
function checkUnfinished(
  { store, unfinished, isTakenOver }: StoreClaim,
  options: PruneOptions,
): void {
  if (unfinished === undefined || options.isRunGivenUp || isTakenOver) {
    return;
  }
  throw new UbiError(
    "E_ARCHIVE_RUN",
    unfinished === "damaged"
      ? `cannot read ${RUN_KEY} in ${store.name}: it is damaged, or of a later version; drop it with --discard-run`
      : `a run in ${store.name} was cut off: ${ownerOf(unfinished).text}; resume it with archive --resume, or give ` +
          "it up with --discard-run",
  );
}

/** The work would be done, but who has the old key would still read the archive. */
function refuseSameKey(kek: Uint8Array | undefined, newKek: Uint8Array | undefined): void {
  const isSame =
    kek === undefined || newKek === undefined ? kek === newKek : Buffer.compare(kek, newKek) === 0;
  if (isSame) {
    const what =
      kek === undefined
        ? "neither [archive] nor [target] has an archive_kek"
        : "archive_kek of [target] is the one that the archive has already";
    throw new UbiError("E_ARCHIVE_KEY", `${what}; nothing was changed`);
  }
}

function refuseUnfinished({ store, unfinished }: StoreClaim): void {
  if (unfinished !== undefined) {
    const who = unfinished === "damaged" ? `${RUN_KEY} is damaged` : ownerOf(unfinished).text;
    throw new UbiError(
      "E_ARCHIVE_RUN",
      `a run in ${store.name} has not ended (${who}) and needs the old key; resume it, or give it up with archive ` +
        "prune --discard-run",
    );
  }
}
