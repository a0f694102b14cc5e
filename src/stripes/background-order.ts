/**
 * Which stripe the background fetches next, and when: a list in the order it is wanted, a rate limit, a pause.
 * What others gave up meanwhile is found by another pass, and what failed by a late one: a source that was away for
 * an hour fills the disk when it is back, and a damaged stripe is looked at about once a minute.
 */
import { Phase, phaseOf, type StripeState } from "./stripe-state.ts";

/** Stripes looked at in one turn: a long list of fetched ones must not hold up demand. */
const LOOKS_MAX = 65_536;
/** Between two passes; doubled after each that found nothing. */
const PASS_PAUSE_MS = 1_000;
const PASS_PAUSE_MAX_MS = 64_000;
/** A pass behind such a pause takes stripes that failed as well. */
const FAILED_PAUSE_MS = 16_000;
/** When so many stripes fail in a row, the source is most likely gone: it is left alone for a while. */
const BACKGROUND_FAILURES_MAX = 64;
const AWAY_PAUSE_MS = 10_000;
const AWAY_PAUSE_MAX_MS = 320_000;

export class BackgroundOrder {
  readonly #state: StripeState;
  readonly #order: (() => Iterator<number>) | undefined;
  #pass: Iterator<number> | undefined;
  /** Stripes whose fetch failed, and nobody waits for them: before the list. */
  readonly #again = new Set<number>();
  /** By the rate limit, and by the pause between two passes. */
  #rateDueMs = 0;
  #passDueMs = 0;
  #failures = 0;
  #bytesPerSecond = Number.POSITIVE_INFINITY;
  /** The last fetch that began. */
  #lastBytes = 0;
  #lastBeganMs = 0;
  #passPauseMs = PASS_PAUSE_MS;
  #isPaused = false;
  /** When a pause that nobody asked for is over. */
  #resumeMs = Number.POSITIVE_INFINITY;
  #awayPauseMs = AWAY_PAUSE_MS;
  /** This pass takes stripes that failed. */
  #takesFailed = false;

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
    const hasAgain = this.#again.size > 0;
    const hasAny = this.#order !== undefined || hasAgain;
    if (!hasAny || this.#state.counter("unfetched") === 0) {
      return Number.POSITIVE_INFINITY;
    }
    if (this.#isPaused) {
      return this.#resumeMs;
    }
    return hasAgain ? this.#rateDueMs : Math.max(this.#rateDueMs, this.#passDueMs);
  }

  pause(): void {
    this.#isPaused = true;
    this.#resumeMs = Number.POSITIVE_INFINITY;
  }

  resume(): void {
    this.#isPaused = false;
    this.#resumeMs = Number.POSITIVE_INFINITY;
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
    if (this.#isPaused) {
      this.#tryAgain();
    }
    const again = this.#takeAgain();
    if (again !== undefined || this.#order === undefined || nowMs < this.#passDueMs) {
      return again;
    }
    this.#pass ??= this.#order();
    for (let looks = 0; looks < LOOKS_MAX; looks++) {
      const { done, value } = this.#pass.next();
      if (done === true || value === undefined) {
        this.#pass = undefined;
        this.#passDueMs = nowMs + this.#passPauseMs;
        this.#takesFailed = this.#passPauseMs >= FAILED_PAUSE_MS;
        this.#passPauseMs = Math.min(this.#passPauseMs * 2, PASS_PAUSE_MAX_MS);
        return undefined;
      }
      const phase = phaseOf(this.#state.load(value));
      if (phase === Phase.unfetched) {
        this.#passPauseMs = PASS_PAUSE_MS;
        return value;
      }
      if (phase === Phase.failed && this.#takesFailed) {
        return value;
      }
    }
    return undefined;
  }

  /** A stripe that failed may be tried again. */
  again(stripe: number): void {
    this.#again.add(stripe);
  }

  /** Forgets what was to be tried again. */
  clear(): void {
    this.#again.clear();
  }

  /** A fetch of so many bytes began. */
  began(bytes: number, nowMs: number): void {
    this.#lastBytes = bytes;
    this.#lastBeganMs = Math.max(this.#rateDueMs, nowMs);
    this.#waitBehindLast();
  }

  succeeded(): void {
    this.#failures = 0;
    this.#awayPauseMs = AWAY_PAUSE_MS;
  }

  /** A stripe was given up, by whomever it was wanted. */
  failed(nowMs: number): void {
    this.#failures += 1;
    if (this.#failures >= BACKGROUND_FAILURES_MAX && !this.#isPaused) {
      this.#isPaused = true;
      this.#resumeMs = nowMs + this.#awayPauseMs;
      this.#awayPauseMs = Math.min(this.#awayPauseMs * 2, AWAY_PAUSE_MAX_MS);
    }
  }

  // --- internal ---

  #takeAgain(): number | undefined {
    for (const stripe of this.#again) {
      this.#again.delete(stripe);
      if (phaseOf(this.#state.load(stripe)) === Phase.unfetched) {
        return stripe;
      }
    }
    return undefined;
  }

  /** From the start, with what failed when the source went: it may be back. */
  #tryAgain(): void {
    this.resume();
    this.#pass = undefined;
    this.#takesFailed = true;
  }

  #waitBehindLast(): void {
    this.#rateDueMs = this.#lastBeganMs + (this.#lastBytes * 1000) / this.#bytesPerSecond;
  }
}
