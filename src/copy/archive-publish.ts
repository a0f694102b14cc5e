/**
 * The last step of a run: the manifest, after all objects, so that no reader ever meets a map without its objects.
 *
 *   objects are durable
 *   -> [old manifest kept as previous-*, durable]       only when metadata.json is replaced by one with other keys
 *   -> metadata.json                                    not when the one that is there has the same keys
 *   -> stripe-mapping                                   from here on the new archive is there
 *   -> durable -> previous-* and archive-run.json go
 *
 * A run that keeps the keys exchanges one object: readers see the old archive or the new one. One with other keys
 * exchanges two; between them the archive cannot be opened, and after a crash there it stays so until the run is
 * resumed, or the two previous-* objects are copied back. A failure that this process lives to see is undone.
 */
import { MAPPING_KEY, METADATA_KEY } from "../archive/archive-manifest.ts";
import type { ObjectStore } from "../archive/object-store.ts";
import { errorText, UbiError } from "../errors.ts";
import { RUN_KEY } from "./archive-run-file.ts";

export interface NewManifest {
  /** undefined: what is there has these keys. */
  readonly metadata: Uint8Array | undefined;
  readonly mapping: Uint8Array;
  /** There is a manifest with other keys. */
  readonly isReplacing: boolean;
}

/** @throws UbiError E_STORE; the archive that was there before is there again, or the message says where it is */
export async function publishManifest(
  store: ObjectStore,
  manifest: NewManifest,
  signal: AbortSignal,
): Promise<void> {
  const { metadata, mapping, isReplacing } = manifest;
  await store.sync();
  const isKept = isReplacing && metadata !== undefined && (await keepPrevious(store, signal));
  signal.throwIfAborted();
  try {
    // From here to the end nothing is interrupted: it is short, and better done than half done.
    if (metadata !== undefined) {
      await store.put(METADATA_KEY, metadata);
    }
    await store.put(MAPPING_KEY, mapping);
    await store.sync();
  } catch (error) {
    throw isKept ? await undone(store, error) : error;
  }
  for (const { copy } of PAIR) {
    await store.remove(copy);
  }
  await store.remove(RUN_KEY);
  await store.sync();
}

// --- internal ---

const PAIR = [
  { key: METADATA_KEY, copy: `previous-${METADATA_KEY}` },
  { key: MAPPING_KEY, copy: `previous-${MAPPING_KEY}` },
] as const;

/**
 * Copies the old pair. Copies that an interrupted exchange left are the older, whole ones: what is in place may be
 * mixed, so they stay. Returns whether there is anything to go back to.
 */
async function keepPrevious(store: ObjectStore, signal: AbortSignal): Promise<boolean> {
  const sizes = await Promise.all(PAIR.map(({ copy }) => store.sizeOf(copy, { signal })));
  if (sizes.every((size) => size !== undefined)) {
    return true;
  }
  let copied = 0;
  for (const { key, copy } of PAIR) {
    copied += (await copyObject(store, key, copy, signal)) ? 1 : 0;
  }
  await store.sync();
  return copied === PAIR.length;
}

async function copyObject(
  store: ObjectStore,
  from: string,
  to: string,
  signal?: AbortSignal,
): Promise<boolean> {
  const lengthMax = await store.sizeOf(from, { signal });
  const bytes = lengthMax === undefined ? undefined : await store.get(from, { lengthMax, signal });
  if (bytes === undefined) {
    return false;
  }
  await store.put(to, bytes, { signal });
  return true;
}

async function undone(store: ObjectStore, error: unknown): Promise<UbiError> {
  const code = error instanceof UbiError ? error.code : "E_STORE";
  const what = `cannot exchange the manifest in ${store.name}: ${errorText(error)}`;
  try {
    for (const { key, copy } of PAIR) {
      await copyObject(store, copy, key);
    }
    await store.sync();
    return new UbiError(code, `${what}; the archive is as it was before`, { cause: error });
  } catch (cause) {
    const copies = PAIR.map(({ copy }) => copy).join(" and ");
    return new UbiError(
      code,
      `${what}, and cannot undo it: ${errorText(cause)}; the old archive is kept as ${copies}: run again with ` +
        "--resume, or copy them back",
      { cause: error },
    );
  }
}
