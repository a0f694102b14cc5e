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
 * Its order: stripes that guests read from the source itself, those they are likely to ask for next, those that
 * failed and nobody waits for, the list. While
 * such reads go on they have the disks almost to themselves. `seal` makes of a buffer what the base holds.
 */
import { assert } from "../errors.ts";
import { i32 } from "../ffi/view.ts";
import { SECTOR_BYTES } from "../formats/virtio-blk.ts";
import { NO_SOURCE } from "../sources/no-source.ts";
import type { StripeSource } from "../sources/stripe-source.ts";
import { BackgroundOrder } from "./background-order.ts";
import { FetchSlots, Stage } from "./fetch-slots.ts";
import { ReadAhead } from "./read-ahead.ts";
import { RetryList } from "./retry-list.ts";
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
  /** Of the disk now; it changes while no buffer has its last stripe. */
  readonly diskSectors: () => number;
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
const ECANCELED = -125;

export class Fetcher {
  readonly background: BackgroundOrder;
  /** Attempts that failed, of stripes that are tried again. */
  readonly failures = new Map<number, number>();
  readonly #options: FetcherOptions;
  readonly #state: StripeState;
  #source: StripeSource;
  readonly #host: FetchHost;
  readonly #retry: RetryPolicy;
  /** In the order of their arrival. */
  readonly #demands = new Set<number>();
  readonly #readAhead: ReadAhead;
  /** Stripes that guests read from the source. */
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
  readonly #retries = new RetryList();
  readonly #slots: FetchSlots;
  /** By buffer: failed syncs of the base when the write began. */
  readonly #baseFailures: Int32Array;
  /** Demands for stripes that a queue claims. */
  #kept = 0;
  #canZero = true;
  #mayBeginBackground = true;
  #isStopped = false;
  #isGivenUp = false;
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
    this.#slots = new FetchSlots(options.state);
    this.#baseFailures = new Int32Array(buffers);
    for (let buffer = 0; buffer < buffers; buffer++) {
      options.state.placeBuffer(buffer, this.#address(buffer));
    }
  }

  /** Nothing under way and nothing waiting. Stripes of the background may still be left. */
  get isIdle(): boolean {
    const waiting = this.#demands.size + this.#retries.count;
    return waiting === 0 && this.#slots.areAllFree;
  }

  get hasRoomForDemand(): boolean {
    // Those kept for claimed stripes do not count: the end of the claims is in the rings.
    return this.#demands.size - this.#kept < DEMANDS_MAX;
  }

  holds(stripe: number): boolean {
    return this.#slots.holds(stripe);
  }

  /** The base is being written. */
  get isWriting(): boolean {
    return this.#slots.isWriting;
  }

  /** Begins nothing any more, and drops what comes from the source. What is being written goes on. */
  stop(): void {
    this.#isStopped = true;
    this.#demands.clear();
    this.#touched.clear();
    this.#ahead.clear();
    this.#retries.clear();
    this.background.clear();
  }

  /** From here on whoever waits for the source, or comes to, gets an error instead. What is being written goes on. */
  giveUp(): void {
    this.#isGivenUp = true;
    for (const { stripe } of this.#retries.takeDue(Number.POSITIVE_INFINITY)) {
      this.#demands.add(stripe);
    }
    for (let buffer = 0; buffer < this.#slots.count; buffer++) {
      if (this.#slots.stage(buffer) === Stage.source) {
        const stripe = this.#slots.stripe(buffer);
        this.#slots.setStage(buffer, Stage.dropped);
        this.#state.fail(stripe, Phase.failed);
        this.#host.gaveUp(stripe, ECANCELED);
      }
    }
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
    const retry = this.#retries.dueMs;
    const recall = this.#slots.recalled > 0 ? this.#nowMs + RECALL_MS : Infinity;
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
      this.#raise(stripe, byte); // under way, or there
      return;
    }
    // The pause of a retry is kept: a guest must not hammer a source that fails.
    if (!this.#retries.await(stripe)) {
      this.#demands.add(stripe);
    }
  }

  /** A guest reads from the stripe in the source: it is to be kept, but nobody waits. */
  touched(stripe: number): void {
    this.#isAsked = true;
    this.#isTouched = true;
    this.#lookAhead(stripe);
    const isPaused = this.#retries.has(stripe);
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
    this.#slots.freeRecalled();
    this.#retryDue();
    this.#beginDemands();
    if (mayBeginBackground) {
      this.#beginBackground();
    }
    this.#source.submit();
  }

  /** The end of `writeBase` or `zeroBase`: 0, or a negative errno. */
  baseWritten(buffer: number, result: number): void {
    const stage = this.#slots.stage(buffer);
    assert(stage === Stage.base || stage === Stage.zero, "a write ends that was asked for");
    if (result === EOPNOTSUPP && stage === Stage.zero) {
      this.#canZero = false;
      this.#write(buffer);
      return;
    }
    const stripe = this.#slots.stripe(buffer);
    this.#state.recallBuffer(buffer);
    this.#slots.release(buffer);
    if (result < 0) {
      this.failed(stripe, result);
      return;
    }
    this.#state.setPhase(stripe, Phase.onBase);
    this.#host.loaded(stripe, i32(this.#baseFailures, buffer));
  }

  /** The stripe is durable, or was given up: its failures count no more, and nobody waits for it. */
  forget(stripe: number): void {
    this.failures.delete(stripe);
    this.#retries.forget(stripe);
  }

  /** A stripe that the fetcher took has to be fetched anew; it fails when that was tried often enough. */
  failed(stripe: number, result: number): void {
    const failures = (this.failures.get(stripe) ?? 0) + 1;
    const pauseMs = this.#isGivenUp ? undefined : pauseAfter(this.#retry, failures);
    if (pauseMs === undefined) {
      this.forget(stripe);
      this.#state.fail(stripe, Phase.failed);
      this.#host.gaveUp(stripe, result);
      return;
    }
    this.failures.set(stripe, failures);
    this.#state.count("retries", 1);
    this.#state.setPhase(stripe, Phase.unfetched);
    if (!this.#isStopped) {
      this.#retries.add(stripe, this.#nowMs + pauseMs);
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
    if (this.#slots.stage(buffer) === Stage.dropped) {
      this.#slots.release(buffer);
      return;
    }
    assert(this.#slots.stage(buffer) === Stage.source, "a source ends what it was asked for");
    const stripe = this.#slots.stripe(buffer);
    const address = this.#address(buffer);
    const bytes = this.#bytesOf(stripe);
    if (this.#isStopped) {
      this.#slots.release(buffer);
      this.#state.setPhase(stripe, Phase.unfetched);
      return;
    }
    if (result < 0) {
      this.#slots.release(buffer);
      this.failed(stripe, result);
      return;
    }
    this.#state.count("sourceBytes", bytes);
    const isZero = this.#canZero && this.#host.isZero(address, bytes);
    const sector = stripe * this.#options.stripeSectors;
    if (!this.#host.seal(sector, bytes / SECTOR_BYTES, address)) {
      this.#slots.release(buffer);
      this.failed(stripe, EIO);
      return;
    }
    this.#state.lendBuffer(buffer, stripe);
    this.#state.setPhase(stripe, Phase.buffered);
    this.#baseFailures[buffer] = this.#state.baseFailures();
    if (isZero) {
      this.#slots.setStage(buffer, Stage.zero);
      this.#state.count("zeroStripes", 1);
      this.#host.zeroBase(buffer, sector * SECTOR_BYTES, bytes);
    } else {
      this.#write(buffer);
    }
  }

  #write(buffer: number): void {
    const stripe = this.#slots.stripe(buffer);
    this.#slots.setStage(buffer, Stage.base);
    const offset = stripe * this.#options.stripeSectors * SECTOR_BYTES;
    this.#host.writeBase(buffer, offset, this.#address(buffer), this.#bytesOf(stripe));
  }

  #retryDue(): void {
    for (const { stripe, isAwaited } of this.#retries.takeDue(this.#nowMs)) {
      if (isAwaited) {
        this.#demands.add(stripe);
      } else {
        this.background.again(stripe);
      }
    }
  }

  #beginDemands(): void {
    this.#kept = 0;
    for (const stripe of this.#demands) {
      if (this.#slots.freeCount === 0 && !this.#isGivenUp) {
        return;
      }
      if (!isClaimed(this.#state.load(stripe)) && this.#begin(stripe, true)) {
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
    if (this.#isGivenUp) {
      return isClaimed(byte);
    }
    return isClaimed(byte) || (isUnfetched(byte) && this.#source.has(stripe));
  }

  /** What nobody waited for when it was requested goes before others from here on. */
  #raise(stripe: number, byte: number): void {
    if (this.#isStopped || phaseOf(byte) !== Phase.fetching) {
      return;
    }
    this.#retries.await(stripe);
    const buffer = this.#slots.find(stripe);
    if (buffer >= 0) {
      this.#source.raise(buffer);
    }
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
      this.#isGivenUp ||
      this.#demands.size > 0 ||
      this.#retries.count >= this.#slots.count ||
      this.#slots.freeCount <= reserved
    ) {
      return Number.POSITIVE_INFINITY;
    }
    const calmMs = this.#touchedMs + CALM_MS;
    return this.#slots.areAllFree ? Math.min(calmMs, this.#pressedMs + PRESSED_MS) : calmMs;
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
      const isPaused = this.#retries.has(stripe);
      if (!isPaused && this.#beginUndemanded(stripe, "backgroundFetches")) {
        this.background.began(this.#bytesOf(stripe), this.#nowMs);
      }
    }
  }

  #beginUndemanded(stripe: number, counter: StripeCounter): boolean {
    const hasBegun = this.#begin(stripe, false);
    if (hasBegun) {
      this.#pressedMs = this.#nowMs;
      this.#state.count(counter, 1);
    }
    return hasBegun;
  }

  /** False when the stripe needs no fetch, or the source cannot have it. */
  #begin(stripe: number, isDemanded: boolean): boolean {
    if (this.#isGivenUp || !this.#source.has(stripe)) {
      if (this.#state.failUntaken(stripe)) {
        this.#host.gaveUp(stripe, this.#isGivenUp ? ECANCELED : ENOENT);
      }
      return false;
    }
    if (!this.#state.take(stripe, Phase.fetching)) {
      return false;
    }
    const buffer = this.#slots.take(stripe);
    const unit = this.#source.unitBytes;
    const lengthBytes = Math.ceil(this.#bytesOf(stripe) / unit) * unit;
    const part = { stripe, offsetBytes: 0, lengthBytes };
    this.#source.request(buffer, part, this.#address(buffer), isDemanded);
    return true;
  }

  #address(buffer: number): number {
    return this.#options.bufferAddresses[buffer] ?? 0;
  }

  /** The last stripe of the disk may be short. */
  #bytesOf(stripe: number): number {
    const { stripeSectors, diskSectors } = this.#options;
    return Math.min(stripeSectors, diskSectors() - stripe * stripeSectors) * SECTOR_BYTES;
  }
}

function takeFirst(stripes: Set<number>): number {
  const [stripe] = stripes;
  assert(stripe !== undefined, "there is one to take");
  stripes.delete(stripe);
  return stripe;
}
