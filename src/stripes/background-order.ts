/**
 * Which stripe the background fetches next, and when: a list in the order it is wanted, a rate limit, a pause.
 * Stripes that failed are left to a guest's request. What others gave up meanwhile is found by another pass.
 */
import { Phase, phaseOf, type StripeState } from "./stripe-state.ts";

/** Stripes looked at in one turn: a long list of fetched ones must not hold up demand. */
const LOOKS_MAX = 65_536;
/** Between two passes; doubled after each that found nothing. */
const PASS_PAUSE_MS = 1_000;
const PASS_PAUSE_MAX_MS = 64_000;
/** When so many stripes fail in a row, the source is most likely gone. */
const BACKGROUND_FAILURES_MAX = 64;

export class BackgroundOrder {
  readonly #state: StripeState;
  readonly #order: (() => Iterator<number>) | undefined;
  #pass: Iterator<number> | undefined;
  #dueMs = 0;
  #failures = 0;
  #bytesPerSecond = Number.POSITIVE_INFINITY;
  /** The last fetch that began, as long as it is what the next one waits for. */
  #lastBytes = 0;
  #lastBeganMs = 0;
  #passPauseMs = PASS_PAUSE_MS;
  #isPaused = false;

  constructor(state: StripeState, order: (() => Iterator<number>) | undefined) {
    this.#state = state;
    this.#order = order;
    this.#pass = order?.();
  }

  /** Paused by its user, or because stripes failed one after another. */
  get isPaused(): boolean {
    return this.#isPaused;
  }

  /** When there may be a next one; Infinity when there is none. */
  get dueMs(): number {
    const isOver = this.#order === undefined || this.#state.counter("unfetched") === 0;
    return isOver || this.#isPaused ? Number.POSITIVE_INFINITY : this.#dueMs;
  }

  pause(): void {
    this.#isPaused = true;
  }

  resume(): void {
    this.#isPaused = false;
    this.#failures = 0;
  }

  /** Infinity for no limit. It holds from the last fetch on: what the old limit demanded is forgotten. */
  limit(bytesPerSecond: number): void {
    if (bytesPerSecond !== this.#bytesPerSecond) {
      this.#bytesPerSecond = bytesPerSecond;
      if (this.#lastBytes > 0) {
        this.#waitBehindLast();
      }
    }
  }

  /** A stripe to fetch, or undefined when none is wanted now. */
  next(nowMs: number): number | undefined {
    if (nowMs < this.dueMs) {
      return undefined;
    }
    this.#pass ??= this.#order?.();
    for (let looks = 0; looks < LOOKS_MAX; looks++) {
      const { done, value } = this.#pass?.next() ?? { done: true, value: undefined };
      if (done === true || value === undefined) {
        this.#pass = undefined;
        this.#lastBytes = 0;
        this.#dueMs = nowMs + this.#passPauseMs;
        this.#passPauseMs = Math.min(this.#passPauseMs * 2, PASS_PAUSE_MAX_MS);
        return undefined;
      }
      if (phaseOf(this.#state.load(value)) === Phase.unfetched) {
        this.#passPauseMs = PASS_PAUSE_MS;
        return value;
      }
    }
    this.#dueMs = nowMs;
    return undefined;
  }

  /** A fetch of so many bytes began. */
  began(bytes: number, nowMs: number): void {
    this.#lastBytes = bytes;
    this.#lastBeganMs = Math.max(this.#dueMs, nowMs);
    this.#waitBehindLast();
  }

  succeeded(): void {
    this.#failures = 0;
  }

  failed(): void {
    this.#failures += 1;
    this.#isPaused ||= this.#failures >= BACKGROUND_FAILURES_MAX;
  }

  // --- internal ---

  #waitBehindLast(): void {
    this.#dueMs = this.#lastBeganMs + (this.#lastBytes * 1000) / this.#bytesPerSecond;
  }
}
