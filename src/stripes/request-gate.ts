/**
 * A queue worker's side of lazy stripes: says of each request whether its stripes are there, keeps those that
 * have to wait, and lets them go when the stripes change. No request waits for a stripe that it does not need.
 *
 *   admit --> base: go ahead     buffer, source: read from there instead     failed: answer an error
 *         \-> parked --> ... advance: stripes changed --> released, with one of the verdicts above
 *
 * A request that covers an unfetched stripe wholly claims it and needs no fetch; its end goes through `ended`, which
 * holds it back until its stripes are durable: before that a crash would bring the source's data back. It waits for all
 * other stripes before it claims any, and claims upwards or not at all: so claims block nobody who waits for others.
 *
 * Cost on a fetched disk: one atomic load and about 40 ns for a request in one stripe, 80 ns in several. Nothing allocates.
 */
import { Operation } from "../disk/request-table.ts";
import type { SlotWaits } from "../disk/slot-waits.ts";
import { assert } from "../errors.ts";
import { i32, u8 } from "../ffi/view.ts";
import { Intent, IntentRing } from "./intent-ring.ts";
import { RequestRanges } from "./request-ranges.ts";
import {
  FAILURE_MASK,
  isClaimed,
  isUnfetched,
  Phase,
  phaseOf,
  type StripeState,
  WRITTEN_BIT,
} from "./stripe-state.ts";
import { WaitLists } from "./wait-lists.ts";

export const Verdict = {
  /** To the base, now. */
  base: 0,
  parked: 1,
  failed: 2,
  /** A read: from the fetch buffer of its one stripe. When that is gone meanwhile, `admitElsewhere`. */
  buffer: 3,
  /** A read: from the source, at the same place. When that fails, `admitElsewhere`. */
  source: 4,
  /** The request that `ended` was called for is durable: answer it. */
  done: 5,
} as const;

export interface GateOptions {
  readonly state: StripeState;
  readonly ring: SharedArrayBuffer;
  readonly queue: number;
  readonly slotsMax: number;
  /** Ranges of one request. */
  readonly rangesMax: number;
  readonly stripeSectors: number;
  readonly diskSectors: number;
  readonly isWrittenTracked: boolean;
  /** Reads of one stripe below this number go to the source while it is not fetched; 0 for none. */
  readonly directStripes: number;
  /** False: those fetch nothing. */
  readonly isCopyOnRead: boolean;
  readonly waits?: SlotWaits;
  readonly wakeStripeWorker: () => void;
  readonly wakeQueue: (queue: number) => void;
}

/** Stripes of a read that are asked for beyond the one that it waits for. */
const AHEAD_MAX = 16;
/** Stripes of direct reads that are remembered as asked for, by their lowest bits. */
const ASKED = 64;
const NONE = -1;
const READY_WRITTEN = Phase.ready | WRITTEN_BIT;

/** Of a slot: its stripes are checked; some are claimed; they are being made durable. */
const Stage = { checking: 0, claimed: 1, telling: 2, committing: 3 } as const;

export class RequestGate {
  /** Slots that wait no more, with their verdicts; the front end empties it. */
  readonly released: Int32Array;
  releasedCount = 0;
  readonly verdict: Uint8Array;

  readonly #options: GateOptions;
  readonly #state: StripeState;
  readonly #ring: IntentRing;
  readonly #lists: WaitLists;
  /** Exact: the size of a stripe is a power of two. */
  readonly #stripesPerSector: number;
  /** By operation: the byte of a stripe, not WRITTEN, on which nothing waits. */
  readonly #readyByte: Uint8Array;
  /** Slots that have more to tell than the ring took: a list. */
  #telling = NONE;
  readonly #nextTelling: Int32Array;
  #hasUntold = false;
  /** The stripe worker has something to do. */
  #hasTold = false;
  #changesSeen = -1;
  // Columns by slot:
  readonly #operation: Uint8Array;
  readonly #stage: Uint8Array;
  readonly #failures: Uint8Array;
  readonly #isLost: Uint8Array;
  /** Failed syncs of the base when the slot claimed: the commit compares. */
  readonly #baseFailures: Int32Array;
  readonly #mayClaim: Uint8Array;
  /** A read may be answered from a buffer or the source. */
  readonly #mayBypass: Uint8Array;
  // Columns by place in memory of what was asked for: the stripe, and its byte then.
  readonly #askedStripe = new Int32Array(ASKED).fill(NONE);
  readonly #askedByte = new Uint8Array(ASKED);
  readonly #ranges: RequestRanges;

  constructor(options: GateOptions) {
    const { slotsMax } = options;
    this.#options = options;
    this.#state = options.state;
    this.#ring = new IntentRing(options.ring);
    this.#lists = new WaitLists(slotsMax, options.waits);
    this.#stripesPerSector = 1 / options.stripeSectors;
    this.#readyByte = new Uint8Array(8).fill(
      options.isWrittenTracked ? READY_WRITTEN : Phase.ready,
    );
    this.#readyByte[Operation.read] = Phase.ready;
    this.released = new Int32Array(slotsMax);
    this.verdict = new Uint8Array(slotsMax);
    this.#nextTelling = new Int32Array(slotsMax);
    this.#operation = new Uint8Array(slotsMax);
    this.#stage = new Uint8Array(slotsMax);
    this.#failures = new Uint8Array(slotsMax);
    this.#isLost = new Uint8Array(slotsMax);
    this.#baseFailures = new Int32Array(slotsMax);
    this.#mayClaim = new Uint8Array(slotsMax);
    this.#mayBypass = new Uint8Array(slotsMax);
    this.#ranges = new RequestRanges(options);
  }

  /** The disk is larger from here on, with room for its stripes in the shared state. */
  grow(diskSectors: number): void {
    this.#ranges.grow(diskSectors);
  }

  /** A read or write of one range, which lies inside the disk. Returns a verdict. */
  admitTransfer(slot: number, operation: number, sector: number, sectorCount: number): number {
    const first = Math.floor(sector * this.#stripesPerSector);
    if (
      sectorCount > 0 &&
      Math.floor((sector + sectorCount - 1) * this.#stripesPerSector) === first
    ) {
      const byte = this.#state.load(first) & ~FAILURE_MASK;
      if (byte === READY_WRITTEN || byte === this.#readyByte[operation]) {
        this.#stage[slot] = Stage.checking;
        return Verdict.base;
      }
    }
    this.begin(slot, operation);
    this.addRange(slot, sector, sectorCount);
    return this.admit(slot);
  }

  /** Begins a request: its ranges follow with `addRange`, then `admit`. Flushes need no gate. */
  begin(slot: number, operation: number): void {
    this.#operation[slot] = operation;
    this.#stage[slot] = Stage.checking;
    this.#ranges.begin(slot);
    this.#mayClaim[slot] = operation === Operation.read ? 0 : 1;
    this.#mayBypass[slot] = 1;
    this.#isLost[slot] = 0;
  }

  /** A range of the request, inside the disk. An empty one is nothing. */
  addRange(slot: number, sector: number, sectorCount: number): void {
    this.#ranges.add(slot, sector, sectorCount);
    // Of ranges that meet in a stripe, or go backwards, none claims: it would wait for itself.
    if (!this.#ranges.areApart(slot)) {
      this.#mayClaim[slot] = 0;
    }
  }

  /** What is to be done with the request, whose ranges were added. */
  admit(slot: number): number {
    this.#ranges.rewind(slot);
    return this.#check(slot);
  }

  /** As `admit`, for a read that its buffer or the source did not serve. */
  admitElsewhere(slot: number): number {
    this.#mayBypass[slot] = 0;
    return this.admit(slot);
  }

  /**
   * Whether the request replaces stripes without a fetch. Call `ended` for it before it is answered. A discard
   * among them must leave zeros, or a plain disk would show what was on the medium before.
   */
  isClaiming(slot: number): boolean {
    return this.#stage[slot] === Stage.claimed;
  }

  /** The I/O of a claiming request has ended. Returns done, failed, or parked until it is durable. */
  ended(slot: number, isOk: boolean): number {
    assert(this.isClaiming(slot), "only what was claimed is handed over");
    this.#ranges.rewind(slot);
    if (!isOk) {
      this.#giveUpClaims(slot, this.#ranges.count(slot), Number.POSITIVE_INFINITY);
      this.#stage[slot] = Stage.checking;
      return Verdict.failed;
    }
    this.#stage[slot] = Stage.telling;
    return this.#tellClaims(slot) ? this.#checkCommit(slot) : Verdict.parked;
  }

  /** Call once a turn, after requests were admitted and ended: wakes who has to act, fills `released`. */
  advance(): void {
    if (this.#lists.count > 0 || this.#telling !== NONE) {
      this.#state.want(this.#options.queue);
      this.#resumeTelling();
      const changes = this.#state.changes();
      if (changes !== this.#changesSeen || this.#hasUntold) {
        this.#changesSeen = changes;
        this.#hasUntold = false;
        this.#lookAtLists();
      }
    }
    this.#state.announce(this.#options.wakeQueue);
    if (this.#hasTold) {
      this.#hasTold = false;
      this.#options.wakeStripeWorker();
    }
  }

  // --- internal: checking ---

  #check(slot: number): number {
    return this.#operation[slot] === Operation.read
      ? this.#checkRead(slot)
      : this.#checkWrite(slot);
  }

  #checkRead(slot: number): number {
    const ranges = this.#ranges;
    if (ranges.count(slot) === 0) {
      return Verdict.base;
    }
    const first = ranges.first(slot, 0);
    const last = ranges.last(slot, 0);
    let isPrefix = true;
    for (let stripe = ranges.start(slot, 0); stripe <= last; stripe++) {
      const byte = this.#state.load(stripe);
      const phase = phaseOf(byte);
      isPrefix &&= phase === Phase.ready; // what is on the base may have to be fetched anew
      if (isPrefix) {
        ranges.moveTo(slot, 0, stripe + 1);
      }
      if (phase === Phase.ready || phase === Phase.onBase) {
        continue;
      }
      if (first === last && u8(this.#mayBypass, slot) === 1) {
        if (phase === Phase.buffered) {
          return Verdict.buffer;
        }
        if (stripe < this.#options.directStripes && !isClaimed(byte)) {
          this.#askForDirect(stripe, byte);
          return Verdict.source;
        }
      }
      this.#park(slot, stripe, byte, isUnfetched(byte) ? Intent.fetch : 0);
      if (isUnfetched(byte) && stripe < last) {
        // To save a round trip a stripe; if the ring is full they are asked for when their turn comes.
        this.#tell(Intent.fetch, stripe + 1, Math.min(AHEAD_MAX, last - stripe));
      }
      return Verdict.parked;
    }
    return Verdict.base;
  }

  /** Nobody waits for it, so what a full ring does not take is not told: the next read asks again. */
  #askForDirect(stripe: number, byte: number): void {
    const place = stripe & (ASKED - 1);
    const isAsked = i32(this.#askedStripe, place) === stripe && u8(this.#askedByte, place) === byte;
    if (!this.#options.isCopyOnRead || !isUnfetched(byte) || isAsked) {
      return;
    }
    if (this.#tell(Intent.touched, stripe, 1)) {
      this.#askedStripe[place] = stripe;
      this.#askedByte[place] = byte;
    }
  }

  /** Goes on where the last look ended: a stripe that was ready (and written) stays so. */
  #checkWrite(slot: number): number {
    const ranges = this.#ranges;
    const count = ranges.count(slot);
    let isPrefix = true;
    let claims = 0;
    for (let range = ranges.range(slot); range < count; range++) {
      const last = ranges.last(slot, range);
      for (let stripe = ranges.start(slot, range); stripe <= last; stripe++) {
        const byte = this.#state.load(stripe);
        const needs = this.#needsOfWrite(slot, range, stripe, byte);
        if (needs < 0) {
          claims += 1;
        } else if (needs > 0 || phaseOf(byte) !== Phase.ready) {
          this.#park(slot, stripe, byte, needs);
          return Verdict.parked;
        }
        isPrefix &&= needs === 0;
        if (isPrefix) {
          ranges.moveTo(slot, range, stripe + 1);
        }
      }
    }
    return claims === 0 ? Verdict.base : this.#claim(slot);
  }

  /** Intents that a write has for a stripe; 0 for none, -1 when it can claim the stripe. */
  #needsOfWrite(slot: number, range: number, stripe: number, byte: number): number {
    const isMissing = this.#options.isWrittenTracked && (byte & WRITTEN_BIT) === 0;
    const written = isMissing ? Intent.written : 0;
    if (!isUnfetched(byte)) {
      return isClaimed(byte) ? 0 : written;
    }
    const mayClaim = this.#mayClaim[slot] === 1 && this.#ranges.isWhole(slot, range, stripe);
    return mayClaim ? -1 : Intent.fetch | written;
  }

  #claim(slot: number): number {
    this.#baseFailures[slot] = this.#state.baseFailures();
    const ranges = this.#ranges;
    const count = ranges.count(slot);
    for (let range = ranges.range(slot); range < count; range++) {
      const last = ranges.lastWhole(slot, range);
      let stripe = ranges.startWhole(slot, range);
      for (; stripe <= last; stripe++) {
        const byte = this.#state.load(stripe);
        if (phaseOf(byte) === Phase.ready && this.#needsOfWrite(slot, range, stripe, byte) === 0) {
          continue;
        }
        if (!this.#state.take(stripe, Phase.claimed)) {
          this.#giveUpClaims(slot, range, stripe);
          return this.#checkWrite(slot); // somebody else took it meanwhile
        }
      }
    }
    this.#stage[slot] = Stage.claimed;
    return Verdict.base;
  }

  /** Of what this slot claimed, all before stripe `endStripe` of range `endRange` is unfetched again. */
  #giveUpClaims(slot: number, endRange: number, endStripe: number): void {
    const ranges = this.#ranges;
    const count = ranges.count(slot);
    for (let range = ranges.range(slot); range < count && range <= endRange; range++) {
      const last = ranges.lastWhole(slot, range);
      let stripe = ranges.startWhole(slot, range);
      for (; stripe <= last && (range < endRange || stripe < endStripe); stripe++) {
        if (phaseOf(this.#state.load(stripe)) === Phase.claimed) {
          this.#giveUp(stripe);
        }
      }
    }
  }

  /** The stripe worker may have kept a demand for the stripe until now. */
  #giveUp(stripe: number): void {
    this.#state.setPhase(stripe, Phase.unfetched);
    this.#hasTold = true;
  }

  // --- internal: making claims durable ---

  /** Tells the stripe worker of all claims, in runs; false when the ring is full: it goes on later. */
  #tellClaims(slot: number): boolean {
    const ranges = this.#ranges;
    const count = ranges.count(slot);
    for (let range = ranges.range(slot); range < count; range++) {
      const last = ranges.lastWhole(slot, range);
      let stripe = ranges.startWhole(slot, range);
      while (stripe <= last) {
        const run = this.#claimedRun(stripe, last);
        if (run > 0 && !this.#tell(Intent.changed, stripe, run, i32(this.#baseFailures, slot))) {
          ranges.moveTo(slot, range, stripe);
          this.#nextTelling[slot] = this.#telling;
          this.#telling = slot;
          return false;
        }
        stripe += Math.max(run, 1);
      }
    }
    this.#ranges.rewind(slot);
    this.#stage[slot] = Stage.committing;
    return true;
  }

  #claimedRun(stripe: number, last: number): number {
    let end = stripe;
    while (end <= last && phaseOf(this.#state.load(end)) === Phase.claimed) {
      end += 1;
    }
    return end - stripe;
  }

  /** Each claimed stripe becomes ready, or lost: then it is given up and the request fails. */
  #checkCommit(slot: number): number {
    const ranges = this.#ranges;
    const count = ranges.count(slot);
    for (let range = ranges.range(slot); range < count; range++) {
      const last = ranges.last(slot, range);
      for (let stripe = ranges.start(slot, range); stripe <= last; stripe++) {
        const byte = this.#state.load(stripe);
        if (phaseOf(byte) === Phase.claimed) {
          ranges.moveTo(slot, range, stripe);
          this.#park(slot, stripe, byte, 0);
          return Verdict.parked;
        }
        if (phaseOf(byte) === Phase.lost) {
          this.#giveUp(stripe);
          this.#isLost[slot] = 1;
        }
      }
    }
    this.#stage[slot] = Stage.checking;
    return this.#isLost[slot] === 1 ? Verdict.failed : Verdict.done;
  }

  #resumeTelling(): void {
    let slot = this.#telling;
    this.#telling = NONE;
    while (slot !== NONE) {
      const next = i32(this.#nextTelling, slot);
      if (this.#tellClaims(slot)) {
        this.#settle(slot, this.#checkCommit(slot));
      }
      slot = next;
    }
  }

  // --- internal: waiting ---

  #park(slot: number, stripe: number, byte: number, intents: number): void {
    this.#failures[slot] = byte & FAILURE_MASK;
    const lists = this.#lists;
    const list = lists.add(slot, stripe, byte);
    const news = intents & ~u8(lists.asked, list);
    if (news === 0) {
      return;
    }
    lists.asked[list] = u8(lists.asked, list) | news;
    if (!this.#tell(news, stripe, 1)) {
      lists.untold[list] = u8(lists.untold, list) | news;
      this.#hasUntold = true;
    }
  }

  #tell(intent: number, stripe: number, count: number, baseFailures = 0): boolean {
    const isTold = this.#ring.push(intent, stripe, count, baseFailures);
    this.#hasTold ||= isTold;
    return isTold;
  }

  /** A list that is removed gives its place to the last one, which is looked at next. */
  #lookAtLists(): void {
    const lists = this.#lists;
    for (let list = 0; list < lists.count; ) {
      const stripe = lists.stripe(list);
      const byte = this.#state.load(stripe);
      if (byte !== u8(lists.byte, list)) {
        this.#wake(lists.remove(list), byte);
        continue;
      }
      const untold = u8(lists.untold, list);
      if (untold !== 0) {
        const isTold = this.#tell(untold, stripe, 1);
        lists.untold[list] = isTold ? 0 : untold;
        this.#hasUntold ||= !isTold;
      }
      list += 1;
    }
  }

  /** Looks again at each slot of a removed list. */
  #wake(head: number, byte: number): void {
    for (let slot = head; slot !== NONE; ) {
      const next = this.#lists.next(slot);
      const isCommitting = this.#stage[slot] === Stage.committing;
      if (isCommitting) {
        this.#settle(slot, this.#checkCommit(slot));
      } else if ((byte & FAILURE_MASK) !== u8(this.#failures, slot)) {
        this.#settle(slot, Verdict.failed);
      } else {
        this.#settle(slot, this.#check(slot));
      }
      slot = next;
    }
  }

  #settle(slot: number, verdict: number): void {
    if (verdict === Verdict.parked) {
      return;
    }
    this.verdict[slot] = verdict;
    this.released[this.releasedCount] = slot;
    this.releasedCount += 1;
  }
}
