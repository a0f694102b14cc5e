/**
 * What the main thread tells the stripe worker while that works, and what the worker tells beside the counters of
 * StripeState. Shared memory; whoever asks for something then signals the worker's eventfd.
 *
 *   words    | stop | pause or resume | retry failed | paused | source | give up | grow | hold | failed stripes | the first of them ... |
 *            | stripes that are tried again | the first of them, and how often each has failed ... |
 *   doubles  | bytes a second for the background | sectors to grow to |
 */
import { f64, i32 } from "../ffi/view.ts";

/** Of the failed stripes so many are told by number. */
const FAILED_LISTED_MAX = 32;
/** And of those that are tried again: no more are under way at a time. */
const TRIED_LISTED_MAX = 64;

/** What becomes of the source: it is read, or nobody needs it any more, or there never was one. */
const SOURCE_STATES = ["none", "open", "closed"] as const;
type SourceState = (typeof SOURCE_STATES)[number];

const STOP = 0;
const PAUSE = 1;
const RETRY = 2;
const PAUSED = 3;
const SOURCE = 4;
const GIVE_UP = 5;
const GROW = 6;
const HOLD = 7;
const FAILED = 8;
const FAILED_LIST = 9;
const TRIED = FAILED_LIST + FAILED_LISTED_MAX;
const TRIED_LIST = TRIED + 1;

const PauseWish = { none: 0, pause: 1, resume: 2 } as const;

export interface SharedStripeControl {
  readonly words: SharedArrayBuffer;
  readonly doubles: SharedArrayBuffer;
}

export class StripeControl {
  readonly shared: SharedStripeControl;
  readonly #words: Int32Array;
  readonly #doubles: Float64Array;

  constructor(shared: SharedStripeControl) {
    this.shared = shared;
    this.#words = new Int32Array(shared.words);
    this.#doubles = new Float64Array(shared.doubles);
  }

  static create(sourceState: SourceState): StripeControl {
    const control = new StripeControl({
      words: new SharedArrayBuffer((TRIED_LIST + 2 * TRIED_LISTED_MAX) * 4),
      doubles: new SharedArrayBuffer(16),
    });
    control.limit = Number.POSITIVE_INFINITY;
    control.setSourceState(sourceState);
    return control;
  }

  // The main thread's side:

  askToStop(): void {
    Atomics.store(this.#words, STOP, 1);
  }

  /** Nothing is to be begun until 0 is asked for: another process may have the disk meanwhile. */
  askToHold(ticket: number): void {
    Atomics.store(this.#words, HOLD, ticket);
  }

  /** Whoever waits for the source is to get an error. */
  askToGiveUp(): void {
    Atomics.store(this.#words, GIVE_UP, 1);
  }

  askToPause(): void {
    Atomics.store(this.#words, PAUSE, PauseWish.pause);
  }

  askToResume(): void {
    Atomics.store(this.#words, PAUSE, PauseWish.resume);
  }

  askToRetry(): void {
    Atomics.store(this.#words, RETRY, 1);
  }

  /** Also true when the worker paused by itself, because stripes failed one after another. */
  get isPaused(): boolean {
    const wish = Atomics.load(this.#words, PAUSE);
    return wish === PauseWish.none
      ? Atomics.load(this.#words, PAUSED) === 1
      : wish === PauseWish.pause;
  }

  get sourceState(): SourceState {
    return SOURCE_STATES[Atomics.load(this.#words, SOURCE)] ?? "none";
  }

  get failedCount(): number {
    return Atomics.load(this.#words, FAILED);
  }

  /** The first of them. */
  failedStripes(): readonly number[] {
    const count = Math.min(this.failedCount, FAILED_LISTED_MAX);
    return Array.from({ length: count }, (_, i) => i32(this.#words, FAILED_LIST + i) >>> 0);
  }

  /** How often the fetch of a stripe has failed that is tried again. */
  failedTries(stripe: number): number {
    const count = Atomics.load(this.#words, TRIED);
    for (let i = 0; i < count; i++) {
      if (i32(this.#words, TRIED_LIST + 2 * i) >>> 0 === stripe) {
        return i32(this.#words, TRIED_LIST + 2 * i + 1);
      }
    }
    return 0;
  }

  /** Bytes a second that the background may fetch; Infinity for no limit. */
  get limit(): number {
    return f64(this.#doubles, 0);
  }

  set limit(bytesPerSecond: number) {
    this.#doubles[0] = bytesPerSecond;
  }

  /** The disk is to have so many sectors; until that was answered nothing else is asked for. */
  askToGrow(sectors: number): void {
    this.#doubles[1] = sectors;
    Atomics.store(this.#words, GROW, 1);
  }

  /** Nobody waits for the answer any more. */
  forgetGrowth(): void {
    Atomics.store(this.#words, GROW, 0);
  }

  // The stripe worker's side:

  /** Sectors that the disk is to have; undefined when that was not asked for. */
  get growthAsked(): number | undefined {
    return Atomics.load(this.#words, GROW) === 1 ? f64(this.#doubles, 1) : undefined;
  }

  /** False when nobody waits for the growth any more. */
  takeGrowth(): boolean {
    return Atomics.exchange(this.#words, GROW, 0) === 1;
  }

  get isStopAsked(): boolean {
    return Atomics.load(this.#words, STOP) === 1;
  }

  get holdTicket(): number {
    return Atomics.load(this.#words, HOLD);
  }

  get isGiveUpAsked(): boolean {
    return Atomics.load(this.#words, GIVE_UP) === 1;
  }

  /** What was asked for since the last call; undefined for nothing. It is in force at once for who looks. */
  takePauseWish(): "pause" | "resume" | undefined {
    const wish = Atomics.load(this.#words, PAUSE);
    if (wish === PauseWish.none) {
      return undefined;
    }
    this.setPaused(wish === PauseWish.pause);
    Atomics.compareExchange(this.#words, PAUSE, wish, PauseWish.none); // a later wish stays
    return wish === PauseWish.pause ? "pause" : "resume";
  }

  takeRetryWish(): boolean {
    return Atomics.exchange(this.#words, RETRY, 0) === 1;
  }

  setPaused(isPaused: boolean): void {
    Atomics.store(this.#words, PAUSED, isPaused ? 1 : 0);
  }

  setSourceState(state: SourceState): void {
    Atomics.store(this.#words, SOURCE, SOURCE_STATES.indexOf(state));
  }

  setFailed(stripes: ReadonlySet<number>): void {
    let listed = 0;
    for (const stripe of stripes) {
      if (listed === FAILED_LISTED_MAX) {
        break;
      }
      this.#words[FAILED_LIST + listed] = stripe | 0;
      listed += 1;
    }
    Atomics.store(this.#words, FAILED, stripes.size);
  }

  setTried(failures: ReadonlyMap<number, number>): void {
    let listed = 0;
    for (const [stripe, count] of failures) {
      if (listed === TRIED_LISTED_MAX) {
        break;
      }
      this.#words[TRIED_LIST + 2 * listed] = stripe | 0;
      this.#words[TRIED_LIST + 2 * listed + 1] = count;
      listed += 1;
    }
    Atomics.store(this.#words, TRIED, listed);
  }
}
