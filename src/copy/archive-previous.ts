/** The copies of the old manifest that an exchange of keys makes, and whether those of an earlier run are of use. */
import {
  type ArchiveManifest,
  type ArchiveObjects,
  MAPPING_KEY,
  METADATA_KEY,
  openArchive,
} from "../archive/archive-manifest.ts";
import type { ObjectStore } from "../archive/object-store.ts";
import { UbiError } from "../errors.ts";

export const PREVIOUS = [
  { key: METADATA_KEY, copy: `previous-${METADATA_KEY}` },
  { key: MAPPING_KEY, copy: `previous-${MAPPING_KEY}` },
] as const;

/** The archive in `store`, or why it cannot be opened. @throws UbiError E_STORE */
export async function tryOpen(
  store: ArchiveObjects,
  kek: Uint8Array | undefined,
  signal: AbortSignal | undefined,
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

/**
 * What to do about the manifest that is going to be replaced. Copies that an earlier run left are older than what is
 * in place: they count only where that is known to be half exchanged.
 * @param isHalfExchanged `metadata.json` is that of the run which is resumed
 * @throws UbiError E_ARCHIVE_RUN when nobody can tell which of them is whole, E_STORE
 */
export async function planPrevious(
  store: ObjectStore,
  options: {
    readonly current: ArchiveManifest | UbiError;
    readonly isHalfExchanged: boolean;
    readonly kek: Uint8Array | undefined;
    readonly signal: AbortSignal | undefined;
  },
): Promise<"none" | "copy" | "reuse"> {
  const { current, isHalfExchanged, kek, signal } = options;
  const areAllThere = async (keys: readonly string[]) => {
    const sizes = await Promise.all(keys.map((key) => store.sizeOf(key, { signal })));
    return sizes.every((size) => size !== undefined);
  };
  const isPairThere = await areAllThere(PREVIOUS.map(({ key }) => key));
  if (!(current instanceof UbiError)) {
    return "copy";
  }
  if (!(await areAllThere(PREVIOUS.map(({ copy }) => copy)))) {
    return isPairThere ? "copy" : "none";
  }
  const copies = await tryOpen(copiesIn(store), kek, signal);
  if (!(copies instanceof UbiError) || isHalfExchanged) {
    return "reuse"; // they were durable before the exchange began
  }
  const names = PREVIOUS.map(({ copy }) => copy).join(" and ");
  throw new UbiError(
    "E_ARCHIVE_RUN",
    `${store.name} has ${names} of a run that was cut off, and neither they nor the archive open with this ` +
      "archive_kek: nobody can tell which is whole; resume that run, or remove the two if the archive opens with " +
      "another archive_kek",
  );
}

// --- internal ---

/** The archive that the copies are the manifest of. */
function copiesIn(store: ObjectStore): ArchiveObjects {
  const copyOf = (name: string) => PREVIOUS.find(({ key }) => key === name)?.copy ?? name;
  return { name: store.name, get: (key, options) => store.get(copyOf(key), options) };
}
