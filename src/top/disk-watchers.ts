/** All disks that are followed: those named, and those that the patterns find as time goes by. */
import { type DiskView, DiskWatcher } from "./disk-watcher.ts";
import { findSockets, SOCKETS_MAX, type SocketNames } from "./socket-paths.ts";
import { waitAtMost } from "./waiting.ts";

/** Patterns are looked up this often at most. */
const SEARCH_INTERVAL_MS = 1_000;
/** A disk of a pattern is forgotten when its socket is gone for this long. */
const FORGET_AFTER_SECONDS = 300;

export class DiskWatchers implements Disposable {
  readonly #names: SocketNames;
  #watchers = new Map<string, DiskWatcher>();
  #searchedMs = Number.NEGATIVE_INFINITY;
  #leftOut = 0;

  constructor(names: SocketNames) {
    this.#names = names;
  }

  /** Sockets that are not followed since they are too many. */
  get leftOut(): number {
    return this.#leftOut;
  }

  get hasAnswered(): boolean {
    return [...this.#watchers.values()].some((watcher) => watcher.hasAnswered);
  }

  /** Reads all disks; those that do not answer in `waitMs` are left to answer later. */
  async read(waitMs: number, signal: AbortSignal): Promise<void> {
    this.#search();
    const reads = [...this.#watchers.values()].map((watcher) => watcher.read());
    await waitAtMost(Promise.all(reads), waitMs, signal);
  }

  views(): readonly DiskView[] {
    const nowMs = performance.now();
    return [...this.#watchers.values()].map((watcher) => watcher.view(nowMs));
  }

  [Symbol.dispose](): void {
    for (const watcher of this.#watchers.values()) {
      watcher[Symbol.dispose]();
    }
  }

  // --- internal ---

  #search(): void {
    const nowMs = performance.now();
    if (nowMs - this.#searchedMs < SEARCH_INTERVAL_MS) {
      return;
    }
    this.#searchedMs = nowMs;
    const found = findSockets(this.#names);
    for (const [socket, watcher] of this.#watchers) {
      const { state, silentSeconds = 0 } = watcher.view(nowMs);
      if (!found.includes(socket) && state === "away" && silentSeconds > FORGET_AFTER_SECONDS) {
        watcher[Symbol.dispose]();
        this.#watchers.delete(socket);
      }
    }
    const fresh = found.filter((socket) => !this.#watchers.has(socket));
    const room = SOCKETS_MAX - this.#watchers.size;
    this.#leftOut = Math.max(0, fresh.length - room);
    for (const socket of fresh.slice(0, room)) {
      this.#watchers.set(socket, new DiskWatcher(socket));
    }
  }
}
