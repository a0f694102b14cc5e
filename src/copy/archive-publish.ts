/**
 * The last step of a run: the manifest, after all objects, so that no reader ever meets a map without its objects.
 *
 *   objects are durable
 *   -> [old manifest kept as previous-*]                only when metadata.json is replaced by one with other keys
 *   -> nobody else took the place
 *   -> metadata.json                                    not when the one that is there has the same keys
 *   -> stripe-mapping                                   from here on the new archive is there
 *   -> durable -> previous-* and archive-run.json go
 *
 * All of these are durable one after the other. A run that keeps the keys exchanges one object: readers see the old
 * archive or the new one. One with other keys exchanges two; between them the archive cannot be opened, and after a
 * crash there it stays so until the run is resumed, or the two previous-* objects are copied back. A failure that
 * this process lives to see is undone. What fails when the new archive is there is only a warning.
 */
import { MAPPING_KEY, METADATA_KEY } from "../archive/archive-manifest.ts";
import type { NewObject, ObjectStore } from "../archive/object-store.ts";
import { errorText, UbiError } from "../errors.ts";
import { log } from "../log.ts";
import type { StoreClaim } from "./archive-claim.ts";
import { PREVIOUS } from "./archive-previous.ts";

export interface NewManifest {
  /** undefined: what is there has these keys. */
  readonly metadata: Uint8Array | undefined;
  readonly mapping: Uint8Array;
  /** Of the manifest that is there: "copy" it before, "reuse" the copies that an earlier run made, or "none". */
  readonly previous: "none" | "copy" | "reuse";
}

/**
 * @param patienceMs for the exchange, once the signal is given
 * @throws UbiError E_STORE, E_ARCHIVE_RUN, or the signal's reason; the archive that was there before is there again,
 * or the message says where it is
 */
export async function publishManifest(
  claim: StoreClaim,
  manifest: NewManifest,
  signal: AbortSignal,
  patienceMs = PATIENCE_MS,
): Promise<void> {
  const { store } = claim;
  const { previous } = manifest;
  await store.sync();
  if (previous === "copy") {
    await keepPrevious(store, signal);
  }
  await claim.check(signal);
  using patience = new Patience(signal, patienceMs);
  try {
    await store.putAll(objectsOf(manifest), { signal: patience.signal });
    await store.sync();
  } catch (error) {
    throw previous === "none" ? error : await undone(store, error, patience.undoSignal);
  }
  if (previous !== "none" || claim.unfinished !== undefined) {
    await removePrevious(store, previous !== "none");
  }
  await claim.end();
  await store.sync().catch((error) => warnLeft(store, error));
}

// --- internal ---

const PATIENCE_MS = 20_000;

/**
 * A signal in the middle of the exchange: it is short, and better done than half done. But it is not waited for
 * without end.
 */
class Patience implements Disposable {
  readonly #outer: AbortSignal;
  readonly #patienceMs: number;
  readonly #controller = new AbortController();
  readonly #listener = () => this.#begin();
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(outer: AbortSignal, patienceMs: number) {
    outer.throwIfAborted();
    this.#outer = outer;
    this.#patienceMs = patienceMs;
    outer.addEventListener("abort", this.#listener, { once: true });
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Who was interrupted is not kept waiting by an undoing that hangs, either. */
  get undoSignal(): AbortSignal | undefined {
    return this.#outer.aborted ? AbortSignal.timeout(this.#patienceMs) : undefined;
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
    this.#outer.removeEventListener("abort", this.#listener);
  }

  // --- internal ---

  #begin(): void {
    log.warn(
      "heard the signal: the manifest is being exchanged, and is given this time to be whole",
      {
        seconds: this.#patienceMs / 1000,
      },
    );
    this.#timer = setTimeout(() => this.#controller.abort(this.#outer.reason), this.#patienceMs);
  }
}

function objectsOf({ metadata, mapping }: NewManifest): readonly NewObject[] {
  const exchanged = { key: MAPPING_KEY, bytes: mapping };
  return metadata === undefined ? [exchanged] : [{ key: METADATA_KEY, bytes: metadata }, exchanged];
}

async function keepPrevious(store: ObjectStore, signal: AbortSignal): Promise<void> {
  for (const { key, copy } of PREVIOUS) {
    const bytes = await read(store, key, signal);
    if (bytes === undefined) {
      const advice = "somebody else changed the archive; run again with --resume";
      throw new UbiError("E_ARCHIVE_RUN", `${key} in ${store.name} is gone: ${advice}`);
    }
    await store.put(copy, bytes, { isDurable: true, signal });
  }
}

/** Only what was exchanged is put back: what is as it was needs no room on a full disk. */
async function undone(
  store: ObjectStore,
  error: unknown,
  signal: AbortSignal | undefined,
): Promise<UbiError> {
  const code = error instanceof UbiError ? error.code : "E_STORE";
  const what = `cannot exchange the manifest in ${store.name}: ${errorText(error)}`;
  try {
    const changed: NewObject[] = [];
    for (const { key, copy } of PREVIOUS) {
      const bytes = await read(store, copy, signal);
      if (bytes === undefined) {
        throw new UbiError("E_STORE", `${copy} is gone`);
      }
      const current = await read(store, key, signal);
      if (current === undefined || Buffer.compare(current, bytes) !== 0) {
        changed.push({ key, bytes });
      }
    }
    await store.putAll(changed, { signal });
    await store.sync();
    return new UbiError(code, `${what}; the archive is as it was before`, { cause: error });
  } catch (cause) {
    const copies = PREVIOUS.map(({ copy }) => copy).join(" and ");
    return new UbiError(
      code,
      `${what}, and cannot undo it: ${errorText(cause)}; the old archive is kept as ${copies}: run again with ` +
        "--resume, or copy them back",
      { cause: error },
    );
  }
}

async function read(
  store: ObjectStore,
  key: string,
  signal: AbortSignal | undefined,
): Promise<Uint8Array | undefined> {
  const lengthMax = await store.sizeOf(key, { signal });
  return lengthMax === undefined ? undefined : await store.get(key, { lengthMax, signal });
}

/** @param isThere they are known to be; otherwise they are looked for first */
async function removePrevious(store: ObjectStore, isThere: boolean): Promise<void> {
  try {
    for (const { copy } of PREVIOUS) {
      if (isThere || (await store.sizeOf(copy)) !== undefined) {
        await store.remove(copy);
      }
    }
  } catch (error) {
    warnLeft(store, error);
  }
}

function warnLeft(store: ObjectStore, error: unknown): void {
  log.warn("the archive is complete, but cannot tidy up behind the run: archive prune does so", {
    target: store.name,
    error: errorText(error),
  });
}
