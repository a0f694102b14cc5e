/**
 * One at a time: whoever changes an archive (a run, prune, rekey) claims its place first, and has it to its end.
 *
 *   folder                      flock(2) on the folder; the run object tells who and, for --resume, how
 *   bucket, network file        the run object itself, `archive-run.json`: put on the condition that there is none;
 *   system without locks        where conditions are unknown, put, then read back a little later: the last one has it
 *
 * The object of a run that was cut off is taken over where it can be seen that its process is no more. Of one on
 * another machine nobody here knows: a person has to name it. Whoever took a place over by mistake is found out by
 * the other: the object is read again before the manifest is exchanged, and before anything is removed.
 */
import { abortableSleep } from "../archive/abortable-wait.ts";
import type { ObjectStore } from "../archive/object-store.ts";
import { errorText, UbiError } from "../errors.ts";
import { log } from "../log.ts";
import {
  type ArchiveRunFile,
  encodeEndedFile,
  type FoundRun,
  newToken,
  ownerOf,
  RUN_KEY,
  readRunFile,
} from "./archive-run-file.ts";

export interface ClaimOptions {
  /** The token of a run on another machine that has ended for sure. */
  readonly takeOver: string | undefined;
  readonly signal: AbortSignal | undefined;
  /** Nothing is claimed: only looks whether it could be. */
  readonly isDry?: boolean;
  /** How long two that put their object at the same time may be apart. */
  readonly settleMs?: number;
}

/** What another run left that makes archives; undefined: nothing. */
export type UnfinishedRun = ArchiveRunFile | "damaged" | undefined;

export class StoreClaim {
  readonly store: ObjectStore;
  readonly token = newToken();
  readonly unfinished: UnfinishedRun;
  /** By the options of the one who claims. */
  readonly isTakenOver: boolean;
  /** Somebody was, or is, at work before this one. */
  readonly isObjectThere: boolean;
  readonly #isLocked: boolean;
  readonly #settleMs: number;

  private constructor(
    store: ObjectStore,
    found: FoundRun,
    state: { readonly isLocked: boolean; readonly isTakenOver: boolean; readonly settleMs: number },
  ) {
    this.store = store;
    this.unfinished = unfinishedOf(found);
    this.isTakenOver = state.isTakenOver;
    this.#isLocked = state.isLocked;
    this.isObjectThere = found.kind !== "none";
    this.#settleMs = state.settleMs;
  }

  /**
   * Locks the place where it can be locked, and sees who was there before. Nothing is written before `begin`.
   * @throws UbiError E_ARCHIVE_RUN when somebody else has it, E_STORE
   */
  static async open(store: ObjectStore, options: ClaimOptions): Promise<StoreClaim> {
    const { takeOver, signal, isDry = false, settleMs = SETTLE_MS } = options;
    const lock = isDry ? "unsupported" : store.lock();
    const found = await readRunFile(store, signal);
    if (lock === "busy") {
      throw inUse(store, found);
    }
    const isTakenOver = found.kind === "run" && found.file.token === takeOver;
    if (takeOver !== undefined && !isTakenOver) {
      throw noSuchRun(store, found, takeOver);
    }
    if (found.kind === "run") {
      const { state, text } = ownerOf(found.file);
      if (state === "running") {
        throw inUse(store, found);
      }
      if (state === "elsewhere" && lock !== "locked" && !isTakenOver) {
        const { kind, token } = found.file;
        throw new UbiError(
          "E_ARCHIVE_RUN",
          `${nameOf(kind)} in ${store.name} has not ended, or was cut off: ${text}, another machine, which cannot be ` +
            `looked at; when it is sure that it has ended, give --take-over ${token}`,
        );
      }
    }
    return new StoreClaim(store, found, { isLocked: lock === "locked", isTakenOver, settleMs });
  }

  /**
   * Says that this process is at work.
   * @param content with this claim's token
   * @throws UbiError E_ARCHIVE_RUN when somebody else was faster, E_STORE
   */
  async begin(content: Uint8Array, signal: AbortSignal | undefined): Promise<void> {
    const { store } = this;
    if (!this.#isLocked && !this.isObjectThere) {
      const first = await store.putNew(RUN_KEY, content, { signal });
      if (first === "exists") {
        return await this.check(signal); // our own, when the answer to a first try was lost
      }
      // Once more tells whether the condition is looked at.
      if (first === "put" && (await store.putNew(RUN_KEY, content, { signal })) === "exists") {
        return;
      }
    }
    await store.put(RUN_KEY, content, { isDurable: true, signal });
    if (!this.#isLocked) {
      await abortableSleep(this.#settleMs, signal);
      await this.check(signal);
    }
  }

  /** @throws UbiError E_ARCHIVE_RUN when another one took the place, E_STORE */
  async check(signal: AbortSignal | undefined): Promise<void> {
    const found = await readRunFile(this.store, signal);
    const isOurs = found.kind === "run" && found.file.token === this.token;
    const isGone = found.kind === "none" && this.#isLocked; // somebody tidied up; the lock still holds
    if (!isOurs && !isGone) {
      throw inUse(this.store, found);
    }
  }

  /** What was to be done is done: that the object cannot be removed is no failure of it. */
  async end(): Promise<void> {
    try {
      await this.store.remove(RUN_KEY);
    } catch (error) {
      await this.#markEnded(error);
    }
  }

  // --- internal ---

  async #markEnded(removal: unknown): Promise<void> {
    const facts = { target: this.store.name, error: errorText(removal) };
    try {
      await this.store.put(RUN_KEY, encodeEndedFile(), { isDurable: true });
      log.warn(`cannot remove ${RUN_KEY}: it says now that its run has ended`, facts);
    } catch {
      log.warn(`all is done, but cannot remove ${RUN_KEY}: remove it by hand`, facts);
    }
  }
}

/** `a run`, as messages name the work. */
export function nameOf(kind: "archive" | "prune" | "rekey"): string {
  return kind === "archive" ? "an archive run" : `archive ${kind}`;
}

// --- internal ---

const SETTLE_MS = 2000;

function unfinishedOf(found: FoundRun): UnfinishedRun {
  if (found.kind === "damaged") {
    return "damaged";
  }
  return found.kind === "run" && found.file.kind === "archive" ? found.file : undefined;
}

function noSuchRun(store: ObjectStore, found: FoundRun, takeOver: string): UbiError {
  const there =
    found.kind === "run"
      ? `the one there is ${nameOf(found.file.kind)}, ${ownerOf(found.file).text}: --take-over ${found.file.token}`
      : "none has to be taken over there";
  return new UbiError("E_ARCHIVE_RUN", `no run ${takeOver} in ${store.name}; ${there}`);
}

function inUse(store: ObjectStore, found: FoundRun): UbiError {
  const who =
    found.kind === "run"
      ? `${nameOf(found.file.kind)} is at work on ${store.name}: ${ownerOf(found.file).text}`
      : `another process is at work on ${store.name}`;
  return new UbiError("E_ARCHIVE_RUN", `${who}; wait for its end`);
}
