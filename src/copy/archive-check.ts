/** Looks after an archive: what is in it, whether all of it is whole, what lies beside it without use. */
import {
  type ArchiveManifest,
  MAPPING_KEY,
  METADATA_KEY,
  type Surplus,
} from "../archive/archive-manifest.ts";
import type { ObjectStore, StoreDescription } from "../archive/object-store.ts";
import { openStore } from "../archive/open-store.ts";
import { type ErrorCode, UbiError } from "../errors.ts";
import { HASH_BYTES } from "../formats/stripe-mapping.ts";
import { nameOf } from "./archive-claim.ts";
import { type FoundRun, ownerOf, RUN_KEY, readRunFile } from "./archive-run-file.ts";
import { openFinishedArchive } from "./finished-archive.ts";
import type { RunProgress } from "./make-archive.ts";
import { HashList, ObjectNames } from "./object-names.ts";
import type { BadStripe } from "./object-reader.ts";
import { readObjects } from "./read-objects.ts";
import { COUNTER } from "./stripe-board.ts";

export interface ArchivePlace {
  readonly source: StoreDescription;
  readonly kek: Uint8Array | undefined;
  readonly signal: AbortSignal;
}

export interface VerifySummary {
  readonly storedStripes: number;
  readonly objects: number;
  readonly objectBytes: number;
  readonly badStripes: number;
  /** Of the manifest, whose other faults are errors. */
  readonly surplus: number;
}

/** An object that is not what it should be. */
export interface Finding {
  /** Undefined where it is of the manifest. */
  readonly stripe: number | undefined;
  readonly code: ErrorCode;
  readonly message: string;
}

/**
 * Fetches, hashes and decodes every object.
 * @param hooks `onBad` hears of each object that is not what it should be
 * @throws UbiError E_ARCHIVE*, E_STORE when the archive cannot be opened, or its service fails
 */
export async function verifyArchive(
  place: ArchivePlace,
  hooks: {
    readonly onProgress: (progress: RunProgress) => void;
    readonly onBad: (bad: Finding) => void;
  },
): Promise<VerifySummary> {
  await using store = await openStore(place.source);
  const manifest = await openFinishedArchive(store, place.kek, place.signal);
  for (const each of manifest.surplus) {
    hooks.onBad(surplusFound(store, each));
  }
  const doubts = new Doubts(hooks.onBad);
  // Enciphered, an object belongs to one stripe; if two name it, it is wrong for one of them.
  const names =
    manifest.xtsKey === undefined
      ? ObjectNames.create(manifest.map.storedMax, new HashList())
      : undefined;
  const board = await readObjects(manifest, {
    source: place.source,
    use: { kind: "check", names: names?.shared },
    signal: place.signal,
    onProgress: hooks.onProgress,
    onBad: (bad) => doubts.add(bad),
  });
  doubts.resolve(board.total(COUNTER.OBJECTS) > 0);
  return {
    storedStripes: board.total(COUNTER.STRIPES),
    objects: board.total(COUNTER.OBJECTS),
    objectBytes: board.total(COUNTER.OBJECT_BYTES),
    badStripes: board.total(COUNTER.BAD),
    surplus: manifest.surplus.length,
  };
}

export interface ArchiveReport {
  readonly name: string;
  readonly manifest: ArchiveManifest;
  readonly manifestBytes: number;
  readonly stripes: { readonly absent: number; readonly zero: number; readonly stored: number };
  /** Objects that the map names. */
  readonly objects: number;
  readonly listing: ObjectListing;
  /** A run that has not ended, as text. */
  readonly run: string | undefined;
}

interface ObjectListing {
  /** Of the objects that the map names, those that are there. */
  readonly present: number;
  readonly presentBytes: number;
  /** Objects that it does not name. */
  readonly orphans: number;
  readonly orphanBytes: number;
}

/** @throws UbiError E_ARCHIVE*, E_STORE */
export async function inspectArchive(place: ArchivePlace): Promise<ArchiveReport> {
  const { signal } = place;
  await using store = await openStore(place.source);
  const manifest = await openFinishedArchive(store, place.kek, signal);
  const names = namesOf(manifest);
  const stripes = { absent: 0, zero: 0, stored: 0 };
  for (let stripe = 0; stripe < manifest.map.stripeEnd; stripe += 1) {
    stripes[manifest.map.kind(stripe)] += 1;
  }
  const run = await readRunFile(store, signal);
  const sizes = await Promise.all(
    [METADATA_KEY, MAPPING_KEY].map((key) => store.sizeOf(key, { signal })),
  );
  return {
    name: store.name,
    manifest,
    manifestBytes: sizes.reduce<number>((sum, size) => sum + (size ?? 0), 0),
    stripes,
    objects: names.count,
    listing: await listingOf(store, names, signal),
    run: runText(run),
  };
}

/** The hashes that a map names, each once. */
export function namesOf({ map }: ArchiveManifest): NameSet {
  const claims = ObjectNames.create(map.storedMax, new HashList());
  const hashes = new HashList();
  const hash = new Uint8Array(HASH_BYTES);
  for (let stripe = 0; stripe < map.stripeEnd; stripe += 1) {
    if (map.kind(stripe) === "stored") {
      map.copyHash(stripe, hash, 0);
      const hasHash = (other: number) => Buffer.compare(map.hash(other), hash) === 0;
      if (claims.claim(stripe, hash, hasHash)) {
        hashes.add(hash.toHex());
      }
    }
  }
  return { names: ObjectNames.create(0, hashes), count: hashes.count };
}

export interface NameSet {
  /** `isExisting` tells whether the map names a hash. */
  readonly names: ObjectNames;
  readonly count: number;
}

/** The hash in the key of a stripe's object; undefined for any other key. */
export function hashInKey(key: string): Uint8Array | undefined {
  const hex = /^data\/([0-9a-f]{64})$/.exec(key)?.[1];
  return hex === undefined ? undefined : Uint8Array.fromHex(hex);
}

// --- internal ---

function surplusFound(store: ObjectStore, { key, what }: Surplus): Finding {
  const message =
    `object ${key} in ${store.name} has ${what}: it was changed, though what it says was not; ` +
    "bring it back from a copy";
  return { stripe: undefined, code: "E_ARCHIVE_TAMPERED", message };
}

/** No run of failures in 16 threads is that long: in between something was answered. */
const DOUBTS_MAX = 512;

/** Keeps what a service failed at back, until it is known whether it answers at all. */
class Doubts {
  readonly #tell: (bad: Finding) => void;
  readonly #kept: BadStripe[] = [];
  #hasAnswer = false;

  constructor(tell: (bad: Finding) => void) {
    this.#tell = tell;
  }

  add(bad: BadStripe): void {
    if (bad.isDoubtful && !this.#hasAnswer && this.#kept.length < DOUBTS_MAX) {
      this.#kept.push(bad);
    } else {
      this.resolve(true);
      this.#tell(bad);
    }
  }

  /** @throws UbiError E_STORE when it gave nothing at all */
  resolve(hasAnswer: boolean): void {
    this.#hasAnswer ||= hasAnswer;
    const [first] = this.#kept;
    if (first !== undefined && !this.#hasAnswer) {
      throw new UbiError(first.code, first.message);
    }
    for (const bad of this.#kept.splice(0)) {
      this.#tell(bad);
    }
  }
}

function runText(found: FoundRun): string | undefined {
  if (found.kind === "damaged") {
    return `${RUN_KEY} is damaged, or of a later version`;
  }
  if (found.kind !== "run") {
    return undefined;
  }
  const { state, text } = ownerOf(found.file);
  return `${nameOf(found.file.kind)}, ${text} (${state})`;
}

async function listingOf(
  store: ObjectStore,
  { names }: NameSet,
  signal: AbortSignal,
): Promise<ObjectListing> {
  const listing = { present: 0, presentBytes: 0, orphans: 0, orphanBytes: 0 };
  for await (const { key, sizeBytes } of store.list("data/", { signal })) {
    const hash = hashInKey(key);
    if (hash === undefined) {
      continue;
    }
    if (names.isExisting(hash)) {
      listing.present += 1;
      listing.presentBytes += sizeBytes;
    } else {
      listing.orphans += 1;
      listing.orphanBytes += sizeBytes;
    }
  }
  return listing;
}
