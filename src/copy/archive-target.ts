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
 * no reader ever sees half done. Objects without a manifest are no archive: a run that failed can be repeated.
 */
import { type ArchiveKeys, newArchiveKeys } from "../archive/archive-keys.ts";
import {
  type ArchiveManifest,
  MAPPING_KEY,
  METADATA_KEY,
  openArchive,
} from "../archive/archive-manifest.ts";
import type { ObjectStore } from "../archive/object-store.ts";
import { UbiError } from "../errors.ts";
import { log } from "../log.ts";
import { earlierRun, ownerOf, type RunParameters, readRunFile } from "./archive-run-file.ts";

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
  /** There is a manifest, which is going to be replaced. */
  readonly isReplacing: boolean;
  /** Objects that are there may be of use. */
  readonly mayReuse: boolean;
}

/** @throws UbiError E_ARCHIVE_EXISTS, E_ARCHIVE_RUN, E_ARCHIVE_KEY, E_STORE */
export async function planTarget(store: ObjectStore, needs: TargetNeeds): Promise<TargetPlan> {
  const { mode, parameters, kek, signal } = needs;
  const run = await readRunFile(store, signal);
  if (run !== undefined) {
    refuseRunning(store, ownerOf(run));
  }
  const isArchive = await hasManifest(store, signal);
  if (mode === "resume" && run !== undefined) {
    const earlier = earlierRun(run, kek);
    if (!areEqual(earlier.parameters, parameters)) {
      throw new UbiError(
        "E_ARCHIVE_RUN",
        `the run to resume in ${store.name} had ${textOf(earlier.parameters)}, this one has ${textOf(parameters)}; ` +
          "give the same flags and disk, or begin anew without --resume",
      );
    }
    const found = isArchive ? await tryOpen(store, needs) : undefined;
    const isMetadataCurrent = isManifest(found) && hasKeys(found, earlier.keys, parameters);
    const isReplacing = isArchive && !isMetadataCurrent;
    return { keys: earlier.keys, isMetadataCurrent, isReplacing, mayReuse: true };
  }
  if (!isArchive) {
    return {
      keys: newArchiveKeys(parameters.isEncrypted),
      isMetadataCurrent: false,
      isReplacing: false,
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
  return await planOver(store, needs);
}

/** Whether there is an archive, or a part of one. */
async function hasManifest(store: ObjectStore, signal: AbortSignal | undefined): Promise<boolean> {
  return (
    (await store.sizeOf(METADATA_KEY, { signal })) !== undefined ||
    (await store.sizeOf(MAPPING_KEY, { signal })) !== undefined
  );
}

// --- internal ---

function refuseRunning(store: ObjectStore, owner: ReturnType<typeof ownerOf>): void {
  if (owner.state === "running") {
    throw new UbiError(
      "E_ARCHIVE_RUN",
      `another run is writing to ${store.name}: ${owner.text}; wait for its end`,
    );
  }
  if (owner.state === "elsewhere") {
    log.warn(
      "a run on another machine has not ended, or was cut off: two at a time spoil the archive",
      {
        target: store.name,
        run: owner.text,
      },
    );
  }
}

/** Over an archive that is to be replaced or brought up to date. */
async function planOver(store: ObjectStore, needs: TargetNeeds): Promise<TargetPlan> {
  const { mode, parameters } = needs;
  const found = await tryOpen(store, needs);
  if (isManifest(found) && areEqual(parametersOf(found), parameters)) {
    const keys = { xtsKey: found.xtsKey, hmacKey: found.hmacKey };
    const mayReuse = mode === "incremental";
    return { keys, isMetadataCurrent: true, isReplacing: false, mayReuse };
  }
  if (mode === "incremental") {
    const why = isManifest(found)
      ? `it has ${textOf(parametersOf(found))}, this run has ${textOf(parameters)}`
      : found.message;
    throw new UbiError(
      "E_ARCHIVE_EXISTS",
      `cannot go on from the archive in ${store.name}: ${why}; give the same flags and archive_kek, or --replace`,
    );
  }
  return {
    keys: newArchiveKeys(parameters.isEncrypted),
    isMetadataCurrent: false,
    isReplacing: true,
    mayReuse: false,
  };
}

/** The archive, or why it cannot be opened. */
async function tryOpen(
  store: ObjectStore,
  { kek, signal }: TargetNeeds,
): Promise<ArchiveManifest | UbiError> {
  try {
    return await openArchive(store, kek, signal);
  } catch (error) {
    if (error instanceof UbiError && error.code.startsWith("E_ARCHIVE")) {
      return error;
    }
    throw error;
  }
}

function isManifest(found: ArchiveManifest | UbiError | undefined): found is ArchiveManifest {
  return found !== undefined && !(found instanceof UbiError);
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
