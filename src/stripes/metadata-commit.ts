/**
 * Makes changes of stripes durable, many at a time. It decides and does no I/O: its host carries out what it
 * asks for and calls back with the end.
 *
 *   add ... add --> base flush --> write of each dirty sector --> metadata flush --> committed
 *     ^             (once)         (once each)                    (once)
 *     +-- what is added meanwhile belongs to the next round
 *
 * The order is what keeps data: a stripe's data is on the base before `add` is called, so the base flush of
 * its round covers it; FETCHED is written after that flush, and told to nobody before the metadata flush.
 *
 * A failed base flush is not tried again: the kernel may have dropped what it could not write, and would report
 * success the next time. The stripes of the round fail, so that their data is written anew; the same when any
 * other sync of the base failed since one of them was written. A failed write or
 * flush of metadata is tried again, from the writes on, because what is to be written is still here.
 */
import { assert } from "../errors.ts";
import { groupOfStripe, STRIPE_FLAG, sectorOfGroup } from "../formats/metadata.ts";
import { encodeGroup } from "../formats/metadata-codec.ts";
import { pauseAfter, RETRY_DEFAULT, type RetryPolicy } from "./retry-policy.ts";

/** What the commit needs done. Ends come back by the method named. */
export interface CommitHost {
  /** All that was written to the base before becomes durable -> `baseFlushed`. */
  flushBase(): void;
  /** Writes the sector that lies in place `place` -> `sectorWritten`. The place is kept until then. */
  writeSector(place: number, sector: number): void;
  /** Syncs of the base that failed so far, this host's or others'. */
  baseFailures(): number;
  /** -> `metadataFlushed`. */
  flushMetadata(): void;
  /** The bits (of STRIPE_FLAG) are durable. */
  committed(stripe: number, bits: number): void;
  /** The bits are not durable and nobody tries any more. */
  failed(stripe: number, bits: number, isBaseFailure: boolean): void;
}

export interface CommitOptions {
  /** The flags of all stripes as they are on the medium: the commit's own from here on. */
  readonly flags: Uint8Array;
  readonly host: CommitHost;
  /** Memory of one sector each: as many writes are under way at once. */
  readonly places: readonly Uint8Array[];
  readonly retry?: RetryPolicy;
}

const Stage = { idle: 0, baseFlush: 1, writing: 2, metadataFlush: 3, pause: 4 } as const;

const { FETCHED } = STRIPE_FLAG;
const NONE = -1;
const MIXED = -2;
const PENDING_MASK = 0x0f;
const ROUND_SHIFT = 4;

export class MetadataCommit {
  #flags: Uint8Array;
  readonly #host: CommitHost;
  readonly #places: readonly Uint8Array[];
  readonly #retry: RetryPolicy;
  /** By stripe: bits for the next round below, bits of this round above. */
  #marks: Uint8Array;
  #pending: number[] = [];
  #round: number[] = [];
  /** Failed syncs of the base when the data of the stripes was written: of one, and whether others differ. */
  #pendingFailures = NONE;
  #isPendingMixed = false;
  #roundFailures = NONE;
  /** Dirty groups of the round, and how many of them were handed out and have ended. */
  #groups: readonly number[] = [];
  #groupsBegun = 0;
  #writesUnderWay = 0;
  readonly #freePlaces: number[];
  #hasWriteFailed = false;
  #stage: number = Stage.idle;
  #failures = 0;
  #dueMs = 0;
  #nowMs = 0;

  constructor(options: CommitOptions) {
    assert(options.places.length > 0, "a sector is encoded somewhere");
    this.#flags = options.flags;
    this.#host = options.host;
    this.#places = options.places;
    this.#retry = options.retry ?? RETRY_DEFAULT;
    this.#marks = new Uint8Array(options.flags.length);
    this.#freePlaces = options.places.map((_, place) => place);
  }

  /** Stripes whose end was not told. */
  get uncommitted(): number {
    return this.#pending.length + this.#round.length;
  }

  /** Between two rounds: nothing is being written, and what was is durable or was given up. */
  get isBetweenRounds(): boolean {
    return this.#stage === Stage.idle;
  }

  /** The disk has more stripes, and the metadata file knows of them. @param flags the old ones and behind them the new */
  grow(flags: Uint8Array): void {
    assert(this.isBetweenRounds, "the flags change when no round needs them");
    assert(flags.length >= this.#flags.length, "stripes are never taken away");
    const marks = new Uint8Array(flags.length);
    marks.set(this.#marks);
    this.#flags = flags;
    this.#marks = marks;
  }

  /** As they are on the medium when no round is under way. */
  get flags(): Uint8Array {
    return this.#flags;
  }

  /** When `advance` is to be called though nothing ended; Infinity when there is no such time. */
  get dueMs(): number {
    return this.#stage === Stage.pause ? this.#dueMs : Number.POSITIVE_INFINITY;
  }

  /** The stripe's data was written to the base, all of it, from a time when so many syncs had failed. */
  addFetched(stripe: number, bits: number, baseFailures: number): void {
    this.#isPendingMixed ||=
      this.#pendingFailures !== NONE && this.#pendingFailures !== baseFailures;
    this.#pendingFailures = baseFailures;
    this.add(stripe, bits | FETCHED);
  }

  /** Bits that are not about data. */
  add(stripe: number, bits: number): void {
    assert(stripe < this.#flags.length, "the stripe is one of the disk");
    const marks = this.#marks[stripe] ?? 0;
    if ((marks & PENDING_MASK) === 0) {
      this.#pending.push(stripe);
    }
    this.#marks[stripe] = marks | bits;
  }

  /** Begins what can begin. Call after adding, once a turn, and at `dueMs`. */
  advance(nowMs: number): void {
    this.#nowMs = nowMs;
    if (this.#stage === Stage.pause && nowMs >= this.#dueMs) {
      this.#writeAll();
    } else if (this.#stage === Stage.idle && this.#pending.length > 0) {
      this.#beginRound();
    }
  }

  baseFlushed(isOk: boolean): void {
    assert(this.#stage === Stage.baseFlush, "a base flush ends that was asked for");
    if (!isOk || this.#isRoundDoubtful()) {
      this.#failFetched();
    }
    this.#setFlags();
    this.#writeAll();
  }

  sectorWritten(place: number, isOk: boolean): void {
    assert(this.#stage === Stage.writing, "a write ends that was asked for");
    this.#writesUnderWay -= 1;
    this.#freePlaces.push(place);
    this.#hasWriteFailed ||= !isOk;
    this.#writeMore();
  }

  metadataFlushed(isOk: boolean): void {
    assert(this.#stage === Stage.metadataFlush, "a metadata flush ends that was asked for");
    if (isOk) {
      this.#endRound(true);
    } else {
      this.#retryOrFail();
    }
  }

  // --- internal ---

  #beginRound(): void {
    assert(this.#round.length === 0, "one round is under way");
    this.#round = this.#pending;
    this.#pending = [];
    this.#failures = 0;
    this.#roundFailures = this.#isPendingMixed ? MIXED : this.#pendingFailures;
    this.#pendingFailures = NONE;
    this.#isPendingMixed = false;
    let needsBase = false;
    for (const stripe of this.#round) {
      const bits = (this.#marks[stripe] ?? 0) & PENDING_MASK & ~(this.#flags[stripe] ?? 0);
      this.#marks[stripe] = bits << ROUND_SHIFT;
      needsBase ||= (bits & FETCHED) !== 0;
    }
    this.#stage = Stage.baseFlush;
    if (needsBase) {
      this.#host.flushBase();
    } else {
      this.baseFlushed(true);
    }
  }

  /** Whether a sync of the base failed since a stripe of the round was written. */
  #isRoundDoubtful(): boolean {
    return this.#roundFailures !== NONE && this.#roundFailures !== this.#host.baseFailures();
  }

  /** Sets the bits of the round in the flags. `#beginRound` left only those that are new. */
  #setFlags(): void {
    const groups = new Set<number>();
    for (const stripe of this.#round) {
      const bits = (this.#marks[stripe] ?? 0) >> ROUND_SHIFT;
      this.#flags[stripe] = (this.#flags[stripe] ?? 0) | bits;
      if (bits !== 0) {
        groups.add(groupOfStripe(stripe));
      }
    }
    this.#groups = [...groups].sort((a, b) => a - b);
  }

  #writeAll(): void {
    if (this.#groups.length === 0) {
      this.#endRound(true);
      return;
    }
    this.#stage = Stage.writing;
    this.#groupsBegun = 0;
    this.#hasWriteFailed = false;
    this.#writeMore();
  }

  #writeMore(): void {
    while (this.#groupsBegun < this.#groups.length && !this.#hasWriteFailed) {
      const place = this.#freePlaces.pop();
      if (place === undefined) {
        return;
      }
      const group = this.#groups[this.#groupsBegun] ?? 0;
      this.#groupsBegun += 1;
      this.#writesUnderWay += 1;
      const sector = this.#places[place];
      assert(sector !== undefined, "a place has memory");
      encodeGroup(this.#flags, group, sector);
      this.#host.writeSector(place, sectorOfGroup(group));
    }
    if (this.#writesUnderWay > 0) {
      return;
    }
    if (this.#hasWriteFailed) {
      this.#retryOrFail();
    } else {
      this.#stage = Stage.metadataFlush;
      this.#host.flushMetadata();
    }
  }

  #retryOrFail(): void {
    this.#failures += 1;
    const pauseMs = pauseAfter(this.#retry, this.#failures);
    if (pauseMs === undefined) {
      this.#endRound(false);
      return;
    }
    this.#stage = Stage.pause;
    this.#dueMs = this.#nowMs + pauseMs;
  }

  #endRound(isOk: boolean): void {
    const round = this.#round;
    this.#round = [];
    this.#groups = [];
    this.#stage = Stage.idle;
    for (const stripe of round) {
      const marks = this.#marks[stripe] ?? 0;
      const bits = marks >> ROUND_SHIFT;
      this.#marks[stripe] = marks & PENDING_MASK;
      if (isOk) {
        this.#host.committed(stripe, bits);
      } else {
        this.#giveUp(stripe, bits, false);
      }
    }
  }

  /** Takes the stripes whose data the failed base flush was for out of the round. */
  #failFetched(): void {
    const round = this.#round;
    this.#round = [];
    for (const stripe of round) {
      const marks = this.#marks[stripe] ?? 0;
      const bits = marks >> ROUND_SHIFT;
      if ((bits & FETCHED) === 0) {
        this.#round.push(stripe);
      } else {
        this.#marks[stripe] = marks & PENDING_MASK;
        this.#giveUp(stripe, bits, true);
      }
    }
  }

  /** What was to follow for the stripe fails with it: WRITTEN is never set without FETCHED. */
  #giveUp(stripe: number, bits: number, isBaseFailure: boolean): void {
    const pending = (this.#marks[stripe] ?? 0) & PENDING_MASK;
    if (pending !== 0) {
      this.#pending = this.#pending.filter((other) => other !== stripe);
    }
    this.#marks[stripe] = 0;
    if (!isBaseFailure) {
      this.#flags[stripe] = (this.#flags[stripe] ?? 0) & ~bits;
    }
    this.#host.failed(stripe, bits | pending, isBaseFailure);
  }
}
