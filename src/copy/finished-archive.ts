/** Opens an archive that should be whole; where a first run never came to its end, it says so, and what to do. */
import {
  type ArchiveManifest,
  MAPPING_KEY,
  METADATA_KEY,
  openArchive,
} from "../archive/archive-manifest.ts";
import type { ObjectStore } from "../archive/object-store.ts";
import { UbiError } from "../errors.ts";
import { ownerOf, RUN_KEY, readRunFile } from "./archive-run-file.ts";

/** @throws UbiError as `openArchive` */
export async function openFinishedArchive(
  store: ObjectStore,
  kek: Uint8Array | undefined,
  signal: AbortSignal,
): Promise<ArchiveManifest> {
  try {
    return await openArchive(store, kek, signal);
  } catch (error) {
    const run = await unfinishedText(store, error, signal);
    throw run === undefined
      ? error
      : new UbiError("E_ARCHIVE", `no archive in ${store.name} yet: ${run}`, { cause: error });
  }
}

// --- internal ---

/** undefined: the archive could not be opened for another reason than that it never was finished. */
async function unfinishedText(
  store: ObjectStore,
  error: unknown,
  signal: AbortSignal,
): Promise<string | undefined> {
  if (!(error instanceof UbiError && error.code === "E_ARCHIVE")) {
    return undefined;
  }
  const parts = [METADATA_KEY, MAPPING_KEY].map((key) => store.sizeOf(key, { signal }));
  if ((await Promise.all(parts)).every((size) => size !== undefined)) {
    return undefined;
  }
  const run = await readRunFile(store, signal);
  if (run.kind === "damaged") {
    return `a run was cut off there, and its ${RUN_KEY} is damaged; begin anew with archive --replace`;
  }
  if (run.kind !== "run") {
    return undefined;
  }
  const { state, text } = ownerOf(run.file);
  if (run.file.kind !== "archive") {
    return `what a run left there is being removed, or was in part: ${text}; go on with archive prune --discard-run`;
  }
  switch (state) {
    case "running":
      return `a run is at work there: ${text}; wait for its end`;
    case "dead":
      return `a run was cut off there: ${text}; finish it with archive --resume`;
    case "elsewhere":
      return `a run there has not ended, or was cut off: ${text}, another machine; finish it with archive --resume`;
  }
}
