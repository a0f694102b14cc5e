/**
 * Brings stripes from the source to the base. It decides and does no I/O of its own: the source completes, its
 * host writes, time comes in as a number.
 *
 *   demand ----+                 +-- BUFFERED: reads are answered from the buffer
 *              v                 |
 *   order --> buffer: source -> seal -> base write --> ON_BASE, `loaded`: the commit makes it durable
 *                        |                  |
 *                        +----- failed -----+--> pause, again; after the last retry: FAILED
 *
 * Demand goes before the background, always: that begins only when no demand waits, and leaves some buffers to it.
 * Its order: stripes that guests read from the source itself, those they are likely to ask for next, the list. While
 * such reads go on they have the disks almost to themselves. `seal` makes of a buffer what the base holds.
 */
import { assert } from "../errors.ts";
import { f64, i32, u8 } from "../ffi/view.ts";
import { SECTOR_BYTES } from "../formats/virtio-blk.ts";
import { NO_SOURCE } from "../sources/no-source.ts";
import type { StripeSource } from "../sources/stripe-source.ts";
import { BackgroundOrder } from "./background-order.ts";
import { ReadAhead } from "./read-ahead.ts";
import { pauseAfter, RETRY_DEFAULT, type RetryPolicy } from "./retry-policy.ts";
import {
  isClaimed,
  isUnfetched,
  Phase,
  phaseOf,
  type StripeCounter,
  type StripeState,
} from "./stripe-state.ts";

/** What the fetcher needs done. */
export interface FetchHost {
  /** Whether memory is all zeros; always false where zeros on the disk would not read as zeros (cipher). */
  isZero(address: number, bytes: number): boolean;
  /** Makes of a buffer what the base holds from `sector` on. False when the cipher failed. */
  seal(sector: number, sectorCount: number, address: number): boolean;
  /** Writes to the base -> `baseWritten`. The buffer is kept until then. */
  writeBase(buffer: number, offset: number, address: number, bytes: number): void;
  /** Makes the base read as zeros there, without taking space -> `baseWritten`. */
  zeroBase(buffer: number, offset: number, bytes: number): void;
  /** The stripe is on the base, since a time when so many syncs of it had failed. */
  loaded(stripe: number, baseFailures: number): void;
  /** Given up; the stripe failed. */
  gaveUp(stripe: number, result: number): void;
}

export interface FetcherOptions {
  readonly state: StripeState;
  readonly source: StripeSource;
  readonly host: FetchHost;
  readonly stripeSectors: number;
  readonly diskSectors: number;
  /** Memory of one stripe each, aligned for the source and the base; as many as the state has. */
  readonly bufferAddresses: readonly number[];
  /** Buffers that the background leaves to demand. */
  readonly reservedBuffers: number;
  /** As many while guests ask for stripes, so that those stand behind fewer others on the disk. */
  readonly reservedWhenAsked?: number;
  /** Stripes that are brought at most when guests ask for one after another; 0 for none. */
  readonly aheadMax?: number;
  /** Stripes to fetch without demand, in this order; undefined for none. */
  readonly order?: (() => Iterator<number>) | undefined;
  readonly retry?: RetryPolicy;
}

/** More stripes are not kept in mind: intents stay in their rings. */
const DEMANDS_MAX = 65_536;
const RECALL_MS = 1;
/** So long after a demand others are likely. */
const ASKED_MS = 500;
/** A guest that read from the source is through with it when so long nothing came. */
const CALM_MS = 2;
/** Until then one stripe is fetched at a time, and one in so long. */
const PRESSED_MS = 20;
/** Stripes read from the source that are kept in mind; of others the next read tells again. */
const TOUCHED_MAX = 65_536;
/** Guesses in hand; more are dropped. */
const AHEAD_MAX = 1_024;
const EOPNOTSUPP = -95;
const ENOENT = -2;
const EIO = -5;

const Stage = { free: 0, source: 1, base: 2, zero: 3, recalled: 4 } as const;

interface Retry {
  readonly stripe: number;
  readonly dueMs: number;
  /** Somebody has asked for the stripe since it failed. */
  isAwaited: boolean;
}

export class Fetcher {
  readonly background: BackgroundOrder;
  readonly #options: FetcherOptions;
  readonly #state: StripeState;
  #source: StripeSource;
  readonly #host: FetchHost;
  readonly #retry: RetryPolicy;
  /** In the order of their arrival. */
  readonly #demands = new Set<number>();
  readonly #readAhead: ReadAhead;
  /** Stripes that guests read from the source, and what failed and nobody waits for. */
  readonly #touched = new Set<number>();
  /** Since the last turn: a guest waits for a stripe, or read from the source. */
  #isAsked = false;
  #isTouched = false;
  #touchedMs = Number.NEGATIVE_INFINITY;
  /** Since when such reads follow each other, or the last fetch for nobody began. */
  #pressedMs = Number.NEGATIVE_INFINITY;
  /** Stripes that may be asked for next. */
  readonly #ahead = new Set<number>();
  #askedMs = Number.NEGATIVE_INFINITY;
  readonly #failures = new Map<number, number>();
  #retries: Retry[] = [];
  // Columns by buffer:
  readonly #stage: Uint8Array;
  readonly #stripe: Float64Array;
  /** Failed syncs of the base when the write began. */
  readonly #baseFailures: Int32Array;
  readonly #freeBuffers: Int32Array;
  #freeCount = 0;
  #recalled = 0;
  /** Demands for stripes that a queue claims. */
  #kept = 0;
  #canZero = true;
  #mayBeginBackground = true;
  #isStopped = false;
  #nowMs = 0;

  constructor(options: FetcherOptions) {
    const buffers = options.bufferAddresses.length;
    assert(buffers === options.state.shared.buffers, "the state lends the buffers that there are");
    assert(options.reservedBuffers < buffers, "the background has a buffer");
    this.#options = options;
    this.#state = options.state;
    this.#source = options.source;
    this.#host = options.host;
    this.#retry = options.retry ?? RETRY_DEFAULT;
    this.#readAhead = new ReadAhead(options.aheadMax ?? 0);
    this.background = new BackgroundOrder(options.state, options.order);
    this.#stage = new Uint8Array(buffers);
    this.#stripe = new Float64Array(buffers);
    this.#baseFailures = new Int32Array(buffers);
    this.#freeBuffers = new Int32Array(buffers);
    for (let buffer = buffers - 1; buffer >= 0; buffer--) {
      this.#free(buffer);
      options.state.placeBuffer(buffer, this.#address(buffer));
    }
  }

  /** Nothing under way and nothing waiting. Stripes of the background may still be left. */
  get isIdle(): boolean {
    const waiting = this.#demands.size + this.#retries.length;
    return waiting === 0 && this.#freeCount === this.#freeBuffers.length;
  }

  get hasRoomForDemand(): boolean {
    // Those kept for claimed stripes do not count: the end of the claims is in the rings.
    return this.#demands.size - this.#kept < DEMANDS_MAX;
  }

  /** The base is being written. */
  get isWriting(): boolean {
    return this.#stage.some((stage) => stage === Stage.base || stage === Stage.zero);
  }

  /** Begins nothing any more, and drops what comes from the source. What is being written goes on. */
  stop(): void {
    this.#isStopped = true;
    this.#demands.clear();
    this.#touched.clear();
    this.#ahead.clear();
    this.#retries = [];
  }

  /** Nothing is going to be fetched any more: lets go of the source. */
  closeSource(): void {
    assert(this.isIdle, "a source is closed when nothing is under way");
    this.#source[Symbol.dispose]();
    this.#source = NO_SOURCE;
  }

  /** When `advance` is to be called though nothing completed. */
  get dueMs(): number {
    if (this.#source.completions() > 0) {
      return this.#nowMs;
    }
    const retry = this.#retries.reduce((due, { dueMs }) => Math.min(due, dueMs), Infinity);
    const recall = this.#recalled > 0 ? this.#nowMs + RECALL_MS : Infinity;
    const hasGuests = this.#touched.size + this.#ahead.size > 0;
    const background = Math.max(this.#mayBackgroundMs(), hasGuests ? 0 : this.background.dueMs);
    return Math.min(retry, recall, this.#mayBeginBackground ? background : Infinity);
  }

  /** Somebody waits for the stripe. */
  demand(stripe: number): void {
    this.#isAsked = true;
    this.#lookAhead(stripe);
    const byte = this.#state.load(stripe);
    if (this.#isStopped || (!isUnfetched(byte) && !isClaimed(byte))) {
      return; // under way, or there
    }
    // The pause of a retry is kept: a guest must not hammer a source that fails.
    const retry = this.#retries.find((other) => other.stripe === stripe);
    if (retry === undefined) {
      this.#demands.add(stripe);
    } else {
      retry.isAwaited = true;
    }
  }

  /** A guest reads from the stripe in the source: it is to be kept, but nobody waits. */
  touched(stripe: number): void {
    this.#isAsked = true;
    this.#isTouched = true;
    this.#lookAhead(stripe);
    const isPaused = this.#retries.some((retry) => retry.stripe === stripe);
    if (!this.#isStopped && !isPaused && this.#touched.size < TOUCHED_MAX) {
      this.#touched.add(stripe);
    }
  }

  /** Takes what completed, begins what can begin. Call once a turn and at `dueMs`. */
  advance(nowMs: number, mayBeginBackground: boolean): void {
    this.#nowMs = nowMs;
    this.#askedMs = this.#isAsked ? nowMs : this.#askedMs;
    if (this.#isTouched) {
      this.#pressedMs = nowMs < this.#touchedMs + CALM_MS ? this.#pressedMs : nowMs;
      this.#touchedMs = nowMs;
    }
    this.#isAsked = false;
    this.#isTouched = false;
    this.#mayBeginBackground = mayBeginBackground;
    this.#collect();
    this.#freeRecalled();
    this.#retryDue();
    this.#beginDemands();
    if (mayBeginBackground) {
      this.#beginBackground();
    }
    this.#source.submit();
  }

  /** The end of `writeBase` or `zeroBase`: 0, or a negative errno. */
  baseWritten(buffer: number, result: number): void {
    const stage = u8(this.#stage, buffer);
    assert(stage === Stage.base || stage === Stage.zero, "a write ends that was asked for");
    if (result === EOPNOTSUPP && stage === Stage.zero) {
      this.#canZero = false;
      this.#write(buffer);
      return;
    }
    const stripe = f64(this.#stripe, buffer);
    this.#state.recallBuffer(buffer);
    this.#release(buffer);
    if (result < 0) {
      this.failed(stripe, result);
      return;
    }
    this.#state.setPhase(stripe, Phase.onBase);
    this.#host.loaded(stripe, i32(this.#baseFailures, buffer));
  }

  /** The stripe is durable: earlier failures are forgotten. */
  succeeded(stripe: number): void {
    this.#failures.delete(stripe);
  }

  /** A stripe that the fetcher took has to be fetched anew; it fails when that was tried often enough. */
  failed(stripe: number, result: number): void {
    const failures = (this.#failures.get(stripe) ?? 0) + 1;
    const pauseMs = pauseAfter(this.#retry, failures);
    if (pauseMs === undefined) {
      this.#failures.delete(stripe);
      this.#state.fail(stripe, Phase.failed);
      this.#host.gaveUp(stripe, result);
      return;
    }
    this.#failures.set(stripe, failures);
    this.#state.count("retries", 1);
    this.#state.setPhase(stripe, Phase.unfetched);
    if (!this.#isStopped) {
      // Who waits for it sees it unfetched and asks again.
      this.#retries.push({ stripe, dueMs: this.#nowMs + pauseMs, isAwaited: false });
    }
  }

  // --- internal ---

  #collect(): void {
    const source = this.#source;
    const count = source.completions();
    for (let i = 0; i < count; i++) {
      this.#sourceEnded(source.completedId(i), source.completedResult(i));
    }
    source.release(count);
  }

  #sourceEnded(buffer: number, result: number): void {
    assert(u8(this.#stage, buffer) === Stage.source, "a source ends what it was asked for");
    const stripe = f64(this.#stripe, buffer);
    const address = this.#address(buffer);
    const bytes = this.#bytesOf(stripe);
    if (this.#isStopped) {
      this.#release(buffer);
      this.#state.setPhase(stripe, Phase.unfetched);
      return;
    }
    if (result < 0) {
      this.#release(buffer);
      this.failed(stripe, result);
      return;
    }
    this.#state.count("sourceBytes", bytes);
    const isZero = this.#canZero && this.#host.isZero(address, bytes);
    const sector = stripe * this.#options.stripeSectors;
    if (!this.#host.seal(sector, bytes / SECTOR_BYTES, address)) {
      this.#release(buffer);
      this.failed(stripe, EIO);
      return;
    }
    this.#state.lendBuffer(buffer, stripe);
    this.#state.setPhase(stripe, Phase.buffered);
    this.#baseFailures[buffer] = this.#state.baseFailures();
    if (isZero) {
      this.#stage[buffer] = Stage.zero;
      this.#state.count("zeroStripes", 1);
      this.#host.zeroBase(buffer, sector * SECTOR_BYTES, bytes);
    } else {
      this.#write(buffer);
    }
  }

  #write(buffer: number): void {
    const stripe = f64(this.#stripe, buffer);
    this.#stage[buffer] = Stage.base;
    const offset = stripe * this.#options.stripeSectors * SECTOR_BYTES;
    this.#host.writeBase(buffer, offset, this.#address(buffer), this.#bytesOf(stripe));
  }

  #retryDue(): void {
    if (this.#retries.length === 0) {
      return;
    }
    const due = this.#retries.filter(({ dueMs }) => dueMs <= this.#nowMs);
    this.#retries = this.#retries.filter(({ dueMs }) => dueMs > this.#nowMs);
    for (const { stripe, isAwaited } of due) {
      (isAwaited ? this.#demands : this.#touched).add(stripe);
    }
  }

  #beginDemands(): void {
    this.#kept = 0;
    for (const stripe of this.#demands) {
      if (this.#freeCount === 0) {
        return;
      }
      if (!isClaimed(this.#state.load(stripe)) && this.#begin(stripe)) {
        this.#demands.delete(stripe);
        this.#state.count("demandFetches", 1);
      } else if (this.#mayComeBack(stripe)) {
        this.#kept += 1;
      } else {
        this.#demands.delete(stripe);
      }
    }
  }

  /** A queue claims it: that may be given up, unfetched, and whoever waits would wait for ever. */
  #mayComeBack(stripe: number): boolean {
    const byte = this.#state.load(stripe);
    return isClaimed(byte) || (isUnfetched(byte) && this.#source.has(stripe));
  }

  #lookAhead(stripe: number): void {
    const readAhead = this.#readAhead;
    readAhead.note(stripe);
    const end = Math.min(readAhead.first + readAhead.count, this.#state.stripeCount);
    for (let next = readAhead.first; next < end && this.#ahead.size < AHEAD_MAX; next++) {
      this.#ahead.add(next);
    }
  }

  /** When something may begin that nobody waits for; Infinity until something ends. */
  #mayBackgroundMs(): number {
    const { reservedBuffers, reservedWhenAsked } = this.#options;
    const isAsked = this.#nowMs - this.#askedMs < ASKED_MS;
    const reserved = isAsked ? (reservedWhenAsked ?? reservedBuffers) : reservedBuffers;
    if (
      this.#isStopped ||
      this.#demands.size > 0 ||
      this.#retries.length >= this.#freeBuffers.length ||
      this.#freeCount <= reserved
    ) {
      return Number.POSITIVE_INFINITY;
    }
    const calmMs = this.#touchedMs + CALM_MS;
    const isAlone = this.#freeCount === this.#freeBuffers.length;
    return isAlone ? Math.min(calmMs, this.#pressedMs + PRESSED_MS) : calmMs;
  }

  #mayBackground(): boolean {
    return this.#mayBackgroundMs() <= this.#nowMs;
  }

  #beginBackground(): void {
    while (this.#touched.size > 0 && this.#mayBackground()) {
      this.#beginUndemanded(takeFirst(this.#touched), "demandFetches");
    }
    while (this.#ahead.size > 0 && this.#mayBackground()) {
      const stripe = takeFirst(this.#ahead);
      if (phaseOf(this.#state.load(stripe)) === Phase.unfetched && this.#source.has(stripe)) {
        this.#beginUndemanded(stripe, "aheadFetches");
      }
    }
    while (this.#mayBackground()) {
      const stripe = this.background.next(this.#nowMs);
      if (stripe === undefined) {
        return;
      }
      if (this.#beginUndemanded(stripe, "backgroundFetches")) {
        this.background.began(this.#bytesOf(stripe), this.#nowMs);
      }
    }
  }

  #beginUndemanded(stripe: number, counter: StripeCounter): boolean {
    const hasBegun = this.#begin(stripe);
    if (hasBegun) {
      this.#pressedMs = this.#nowMs;
      this.#state.count(counter, 1);
    }
    return hasBegun;
  }

  /** False when the stripe needs no fetch, or the source cannot have it. */
  #begin(stripe: number): boolean {
    if (!this.#source.has(stripe)) {
      if (this.#state.failUntaken(stripe)) {
        this.#host.gaveUp(stripe, ENOENT);
      }
      return false;
    }
    if (!this.#state.take(stripe, Phase.fetching)) {
      return false;
    }
    this.#freeCount -= 1;
    const buffer = i32(this.#freeBuffers, this.#freeCount);
    this.#stage[buffer] = Stage.source;
    this.#stripe[buffer] = stripe;
    this.#state.count("inFlight", 1);
    const unit = this.#source.unitBytes;
    const lengthBytes = Math.ceil(this.#bytesOf(stripe) / unit) * unit;
    this.#source.request(buffer, { stripe, offsetBytes: 0, lengthBytes }, this.#address(buffer));
    return true;
  }

  #release(buffer: number): void {
    this.#state.count("inFlight", -1);
    if (this.#state.isPinned(buffer)) {
      this.#stage[buffer] = Stage.recalled;
      this.#recalled += 1;
    } else {
      this.#free(buffer);
    }
  }

  #freeRecalled(): void {
    for (let buffer = 0; this.#recalled > 0 && buffer < this.#stage.length; buffer++) {
      if (u8(this.#stage, buffer) === Stage.recalled && !this.#state.isPinned(buffer)) {
        this.#recalled -= 1;
        this.#free(buffer);
      }
    }
  }

  #free(buffer: number): void {
    this.#stage[buffer] = Stage.free;
    this.#freeBuffers[this.#freeCount] = buffer;
    this.#freeCount += 1;
  }

  #address(buffer: number): number {
    return this.#options.bufferAddresses[buffer] ?? 0;
  }

  /** The last stripe of the disk may be short. */
  #bytesOf(stripe: number): number {
    const { stripeSectors, diskSectors } = this.#options;
    return Math.min(stripeSectors, diskSectors - stripe * stripeSectors) * SECTOR_BYTES;
  }
}

function takeFirst(stripes: Set<number>): number {
  const [stripe] = stripes;
  assert(stripe !== undefined, "there is one to take");
  stripes.delete(stripe);
  return stripe;
}
