/**
 * What is at the place where an archive is to be written, and what follows for the keys of the new one.
 *
 *   mode          archive there                         keys                        metadata.json
 *   new           refused                               new                         new
 *   replace       opens, same parameters                those of the archive        stays as it is
 *                 any other, or damaged                 new                         replaced
 *   incremental   opens, same parameters                those of the archive        stays as it is
 *                 any other                             refused
 *   resume        whatever it is                        those of the run            stays when it has these keys
 *
 * With the same keys an unchanged stripe keeps the name of its object, and only `stripe-mapping` is exchanged, which
 * no reader ever sees half done. Objects without a manifest are no archive: a run that failed can be repeated. A run
 * file that is damaged (its keys are lost) is dropped by `replace` alone.
 */
import { type ArchiveKeys, newArchiveKeys, unwrapKey } from "../archive/archive-keys.ts";
import { type ArchiveManifest, MAPPING_KEY, METADATA_KEY } from "../archive/archive-manifest.ts";
import type { ObjectStore } from "../archive/object-store.ts";
import { UbiError } from "../errors.ts";
import {
  ARCHIVE_METADATA_BYTES_MAX,
  decodeArchiveMetadata,
  HMAC_KEY_BYTES,
} from "../formats/archive-metadata.ts";
import type { StoreClaim, UnfinishedRun } from "./archive-claim.ts";
import { planPrevious, tryOpen } from "./archive-previous.ts";
import { earlierRun, RUN_KEY, type RunParameters } from "./archive-run-file.ts";

export type TargetMode = "new" | "replace" | "incremental" | "resume";

export interface TargetNeeds {
  readonly mode: TargetMode;
  readonly parameters: RunParameters;
  readonly kek: Uint8Array | undefined;
  readonly signal: AbortSignal;
}

export interface TargetPlan {
  readonly keys: ArchiveKeys;
  /** `metadata.json` has these keys and parameters already. */
  readonly isMetadataCurrent: boolean;
  /** What becomes of a manifest with other keys (archive-publish.ts); "none" also when the keys stay. */
  readonly previous: "none" | "copy" | "reuse";
  /** There are objects of an archive, or of a run, that the new one has no use for. */
  readonly leavesObjects: boolean;
  /** Objects that are there may be of use. */
  readonly mayReuse: boolean;
  /** The archive that is brought up to date, with these keys. */
  readonly current?: ArchiveManifest;
}

/** @throws UbiError E_ARCHIVE_EXISTS, E_ARCHIVE_RUN, E_ARCHIVE_KEY, E_STORE */
export async function planTarget(
  { store, unfinished }: Pick<StoreClaim, "store" | "unfinished">,
  needs: TargetNeeds,
): Promise<TargetPlan> {
  const { mode, parameters, signal } = needs;
  if (unfinished === "damaged" && mode !== "replace") {
    throw new UbiError(
      "E_ARCHIVE_RUN",
      `cannot read ${RUN_KEY} in ${store.name}: it is damaged, or of a later version, so that its run cannot be ` +
        "resumed; begin anew with --replace, or drop it with archive prune --discard-run",
    );
  }
  const isArchive = await hasManifest(store, signal);
  if (mode === "resume" && unfinished !== undefined && unfinished !== "damaged") {
    return await planResumed(store, needs, { run: unfinished, isArchive });
  }
  if (!isArchive) {
    return {
      keys: newArchiveKeys(parameters.isEncrypted),
      isMetadataCurrent: false,
      previous: "none",
      leavesObjects: unfinished !== undefined,
      mayReuse: !parameters.isEncrypted && mode !== "new", // names depend on the key when there is one
    };
  }
  if (mode === "new" || mode === "resume") {
    const what =
      mode === "new" ? "there is an archive" : "nothing is left to resume: there is an archive";
    throw new UbiError(
      "E_ARCHIVE_EXISTS",
      `${what} in ${store.name} already; give --incremental to bring it up to date, --replace to make it anew, or ` +
        "choose another target",
    );
  }
  return await planOver(store, needs, unfinished);
}

/** Whether there is an archive, or a part of one. */
export async function hasManifest(
  store: ObjectStore,
  signal: AbortSignal | undefined,
): Promise<boolean> {
  return (
    (await store.sizeOf(METADATA_KEY, { signal })) !== undefined ||
    (await store.sizeOf(MAPPING_KEY, { signal })) !== undefined
  );
}

// --- internal ---

/** With the keys of the run that was cut off. */
async function planResumed(
  store: ObjectStore,
  { parameters, kek, signal }: TargetNeeds,
  found: {
    readonly run: Exclude<UnfinishedRun, "damaged" | undefined>;
    readonly isArchive: boolean;
  },
): Promise<TargetPlan> {
  const earlier = earlierRun(found.run, kek);
  if (!areEqual(earlier.parameters, parameters)) {
    throw new UbiError(
      "E_ARCHIVE_RUN",
      `the run to resume in ${store.name} had ${textOf(earlier.parameters)}, this one has ${textOf(parameters)}; ` +
        "give the same flags and disk, or begin anew without --resume",
    );
  }
  const { keys, leavesObjects = false } = earlier;
  const plan = { keys, previous: "none", leavesObjects, mayReuse: true } as const;
  if (!found.isArchive) {
    return { ...plan, isMetadataCurrent: false };
  }
  const current = await tryOpen(store, kek, signal);
  if (isManifest(current) && hasKeys(current, keys, parameters)) {
    return { ...plan, isMetadataCurrent: true };
  }
  const isHalfExchanged = await hasMetadataOf(store, keys, { kek, signal });
  const previous = await planPrevious(store, { current, isHalfExchanged, kek, signal });
  return { ...plan, isMetadataCurrent: false, previous, leavesObjects: true };
}

/** Over an archive that is to be replaced or brought up to date. */
async function planOver(
  store: ObjectStore,
  needs: TargetNeeds,
  unfinished: UnfinishedRun,
): Promise<TargetPlan> {
  const { mode, parameters, kek, signal } = needs;
  const current = await tryOpen(store, kek, signal);
  if (isManifest(current) && areEqual(parametersOf(current), parameters)) {
    return {
      keys: { xtsKey: current.xtsKey, hmacKey: current.hmacKey },
      isMetadataCurrent: true,
      previous: "none",
      leavesObjects: unfinished !== undefined,
      mayReuse: mode === "incremental",
      ...(mode === "incremental" ? { current } : {}),
    };
  }
  if (mode === "incremental") {
    const why = isManifest(current)
      ? `it has ${textOf(parametersOf(current))}, this run has ${textOf(parameters)}`
      : current.message;
    throw new UbiError(
      "E_ARCHIVE_EXISTS",
      `cannot go on from the archive in ${store.name}: ${why}; give the same flags and archive_kek, or --replace`,
    );
  }
  const cutOff = keysOf(unfinished, kek);
  const isHalfExchanged =
    cutOff !== undefined && (await hasMetadataOf(store, cutOff, { kek, signal }));
  return {
    keys: newArchiveKeys(parameters.isEncrypted),
    isMetadataCurrent: false,
    previous: await planPrevious(store, { current, isHalfExchanged, kek, signal }),
    leavesObjects: true,
    mayReuse: false,
  };
}

/** undefined: none, or not to be known with this KEK. */
function keysOf(unfinished: UnfinishedRun, kek: Uint8Array | undefined): ArchiveKeys | undefined {
  if (unfinished === undefined || unfinished === "damaged") {
    return undefined;
  }
  try {
    return earlierRun(unfinished, kek).keys;
  } catch (error) {
    return notOf("E_ARCHIVE", error);
  }
}

/** Whether `metadata.json` has these keys, whatever the map beside it is. */
async function hasMetadataOf(
  store: ObjectStore,
  { hmacKey }: ArchiveKeys,
  { kek, signal }: Pick<TargetNeeds, "kek" | "signal">,
): Promise<boolean> {
  try {
    const bytes = await store.get(METADATA_KEY, { lengthMax: ARCHIVE_METADATA_BYTES_MAX, signal });
    const stored = bytes === undefined ? undefined : decodeArchiveMetadata(bytes).hmacKey;
    const names = { what: "hmac_key", keyBytes: HMAC_KEY_BYTES, kek };
    return stored !== undefined && Buffer.compare(unwrapKey({ stored, ...names }), hmacKey) === 0;
  } catch (error) {
    return notOf("E_ARCHIVE", error) ?? false;
  }
}

/** @throws what is no operating error of that kind */
function notOf(kind: string, error: unknown): undefined {
  if (!(error instanceof UbiError && error.code.startsWith(kind))) {
    throw error;
  }
}

function isManifest(found: ArchiveManifest | UbiError): found is ArchiveManifest {
  return !(found instanceof UbiError);
}

function parametersOf(manifest: ArchiveManifest): RunParameters {
  const { stripeSectors, compression, xtsKey } = manifest;
  return { stripeSectors, compression, isEncrypted: xtsKey !== undefined };
}

function areEqual(a: RunParameters, b: RunParameters): boolean {
  return textOf(a) === textOf(b);
}

function hasKeys(manifest: ArchiveManifest, keys: ArchiveKeys, parameters: RunParameters): boolean {
  const isEqual = (a: Uint8Array | undefined, b: Uint8Array | undefined) =>
    a === undefined || b === undefined ? a === b : Buffer.compare(a, b) === 0;
  return (
    areEqual(parametersOf(manifest), parameters) &&
    isEqual(manifest.xtsKey, keys.xtsKey) &&
    isEqual(manifest.hmacKey, keys.hmacKey)
  );
}

/** All that decides; equal texts are equal parameters. */
function textOf({ stripeSectors, compression, isEncrypted }: RunParameters): string {
  const method = compression.kind === "none" ? "no compression" : `zstd level ${compression.level}`;
  return `stripes of ${stripeSectors} sectors, ${method}, ${isEncrypted ? "encrypted" : "not encrypted"}`;
}
