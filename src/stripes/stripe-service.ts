/**
 * The stripe worker's side of lazy stripes: takes the queues' intents, has stripes fetched and made durable, and
 * tells the queues. It decides and does no I/O; what it needs done goes through its host, time is a number.
 *
 *   intent rings --> fetch ----> Fetcher --- loaded --+
 *                    changed -------------------------+--> MetadataCommit --> READY, WRITTEN --> queues
 *                    written --------- (joins) -------+
 *
 * A turn: the host hands over what completed, then calls `turn` and sleeps until something completes, a queue
 * wakes it, or `dueMs` has come.
 */
import { assert } from "../errors.ts";
import { STRIPE_FLAG } from "../formats/metadata.ts";
import type { StripeSource } from "../sources/stripe-source.ts";
import { Fetcher, type FetchHost } from "./fetcher.ts";
import { Intent, IntentRing } from "./intent-ring.ts";
import { type CommitHost, MetadataCommit } from "./metadata-commit.ts";
import type { RetryPolicy } from "./retry-policy.ts";
import {
  isClaimed,
  isUnfetched,
  Phase,
  phaseOf,
  type StripeState,
  WRITTEN_BIT,
} from "./stripe-state.ts";
import type { TouchOrder } from "./touch-order.ts";

/** What the stripe worker does for the service. Ends come back through `service.fetcher` and `.commit`. */
export interface ServiceHost
  extends Pick<FetchHost, "isZero" | "seal" | "writeBase" | "zeroBase">,
    Pick<CommitHost, "flushBase" | "writeSector" | "flushMetadata"> {
  wakeQueue(queue: number): void;
  /** For the log: a stripe could not be fetched or its state not be stored. */
  report(event: StripeEvent, stripe: number, result: number): void;
}

type StripeEvent = "stripe_fetch_failed" | "stripe_commit_failed";

export interface ServiceOptions {
  readonly state: StripeState;
  readonly rings: readonly SharedArrayBuffer[];
  /** As read from the metadata file; the service's own from here on. */
  readonly flags: Uint8Array;
  readonly source: StripeSource;
  readonly host: ServiceHost;
  readonly stripeSectors: number;
  readonly diskSectors: number;
  readonly bufferAddresses: readonly number[];
  readonly reservedBuffers: number;
  readonly sectorPlaces: readonly Uint8Array[];
  readonly isWrittenTracked: boolean;
  /** Writes since the last archive are noted. */
  readonly isChangeTracked?: boolean;
  readonly reservedWhenAsked?: number;
  readonly aheadMax?: number;
  readonly order?: (() => Iterator<number>) | undefined;
  /** Is told of every stripe that a queue asks for. */
  readonly touches?: TouchOrder | undefined;
  readonly retry?: RetryPolicy;
}

/** With so many stripes not durable yet, no further ones are begun without demand, no intents are taken. */
const UNCOMMITTED_MAX = 65_536;
const EIO = -5;
const { FETCHED, WRITTEN, CHANGED } = STRIPE_FLAG;

export class StripeService {
  readonly fetcher: Fetcher;
  readonly commit: MetadataCommit;
  readonly #state: StripeState;
  readonly #host: ServiceHost;
  readonly #rings: readonly IntentRing[];
  readonly #isWrittenTracked: boolean;
  /** What a write sets in the metadata. */
  readonly #writtenBits: number;
  readonly #stripeSectors: number;
  #diskSectors: number;
  readonly #touches: TouchOrder | undefined;
  /** Stripes that are being fetched, to be WRITTEN together with FETCHED. */
  readonly #wantsWritten = new Set<number>();
  /** Stripes whose last attempt was given up. */
  readonly #failed = new Set<number>();
  #isHeld = false;
  /** Of the turn. */
  #nowMs = 0;

  constructor(options: ServiceOptions) {
    const { state, host, flags, retry } = options;
    this.#state = state;
    this.#host = host;
    this.#rings = options.rings.map((ring) => new IntentRing(ring));
    this.#isWrittenTracked = options.isWrittenTracked;
    this.#writtenBits = options.isChangeTracked === true ? WRITTEN | CHANGED : WRITTEN;
    this.#stripeSectors = options.stripeSectors;
    this.#diskSectors = options.diskSectors;
    this.#touches = options.touches;
    this.fetcher = new Fetcher({
      ...options,
      diskSectors: () => this.#diskSectors,
      host: {
        isZero: (address, bytes) => host.isZero(address, bytes),
        seal: (sector, count, address) => host.seal(sector, count, address),
        writeBase: (buffer, offset, address, bytes) =>
          host.writeBase(buffer, offset, address, bytes),
        zeroBase: (buffer, offset, bytes) => host.zeroBase(buffer, offset, bytes),
        loaded: (stripe, baseFailures) => this.#addFetched(stripe, baseFailures),
        gaveUp: (stripe, result) => this.#gaveUp(stripe, result),
      },
    });
    this.commit = new MetadataCommit({
      flags,
      places: options.sectorPlaces,
      ...(retry === undefined ? {} : { retry }),
      host: {
        flushBase: () => host.flushBase(),
        baseFailures: () => state.baseFailures(),
        writeSector: (place, sector) => {
          state.count("metadataWrites", 1);
          host.writeSector(place, sector);
        },
        flushMetadata: () => host.flushMetadata(),
        committed: (stripe, bits) => this.#committed(stripe, bits),
        failed: (stripe, bits, isBaseFailure) => this.#commitFailed(stripe, bits, isBaseFailure),
      },
    });
  }

  /** Stripes that failed and were not tried again since. */
  get failedStripes(): ReadonlySet<number> {
    return this.#failed;
  }

  /** When `turn` is to be called though nothing happened; Infinity when there is no such time. */
  get dueMs(): number {
    return Math.min(
      this.#isHeld ? Number.POSITIVE_INFINITY : this.fetcher.dueMs,
      this.commit.dueMs,
    );
  }

  /** Nothing under way, and no intent waits. */
  get isIdle(): boolean {
    return (
      this.fetcher.isIdle &&
      this.commit.uncommitted === 0 &&
      this.#rings.every((ring) => ring.waiting() === 0)
    );
  }

  /** Nothing changes on the base or in the metadata any more. What comes from the source is dropped once stopped. */
  get isDrained(): boolean {
    const isTold = this.#rings.every((ring) => ring.waiting() === 0);
    const { isBetweenRounds, uncommitted } = this.commit;
    return isTold && !this.fetcher.isWriting && isBetweenRounds && uncommitted === 0;
  }

  /**
   * Makes ready for a growth; true once nothing depends on the size of the disk any more. A last stripe that is short has
   * to be there before: behind the old end its source may go on, and the new part of the disk is nobody's yet.
   */
  readyToGrow(): boolean {
    const last = Math.ceil(this.#diskSectors / this.#stripeSectors) - 1;
    const isShort = this.#diskSectors % this.#stripeSectors !== 0;
    const byte = this.#state.load(last);
    if (isShort && isUnfetched(byte)) {
      this.fetcher.demand(last);
    }
    return this.commit.isBetweenRounds && !(isShort && phaseOf(byte) !== Phase.ready);
  }

  /** The disk is larger, and the metadata file has the flags. Before any queue knows. */
  grow(flags: Uint8Array, diskSectors: number): void {
    assert(this.readyToGrow(), "a stripe keeps its length while it is fetched");
    this.commit.grow(flags);
    this.#diskSectors = diskSectors;
    this.#state.stripeCount = flags.length;
  }

  /** Fetches nothing any more; what is on the base already is made durable. */
  stop(): void {
    this.fetcher.stop();
  }

  /** Begins nothing until it may again, so that it `isDrained` soon. */
  hold(isHeld: boolean): void {
    this.#isHeld = isHeld;
  }

  /** Whoever waits for the source gets an error from here on. */
  giveUp(): void {
    this.fetcher.giveUp();
  }

  /** Fetches anew what was given up. */
  retryFailed(): void {
    for (const stripe of this.#failed) {
      this.fetcher.demand(stripe);
    }
    this.#failed.clear();
  }

  turn(nowMs: number): void {
    this.#nowMs = nowMs;
    for (const ring of this.#rings) {
      this.#take(ring);
    }
    if (!this.#isHeld) {
      this.fetcher.advance(nowMs, this.commit.uncommitted < UNCOMMITTED_MAX);
    }
    this.commit.advance(nowMs);
    this.#state.announce((queue) => this.#host.wakeQueue(queue));
  }

  // --- internal: intents ---

  #take(ring: IntentRing): void {
    while (ring.waiting() > 0) {
      const room = UNCOMMITTED_MAX - this.commit.uncommitted;
      if (room <= 0 || !this.fetcher.hasRoomForDemand) {
        return;
      }
      const { intent, stripe, baseFailures } = ring;
      const count = Math.min(ring.count, room);
      for (let i = 0; i < count; i++) {
        this.#obey(intent, stripe + i, baseFailures);
      }
      if (ring.shift(count)) {
        this.#state.noteNews(); // what the queue could not tell may be about stripes that do not change
      }
    }
  }

  #obey(intent: number, stripe: number, baseFailures: number): void {
    if ((intent & Intent.changed) !== 0) {
      this.#addFetched(stripe, baseFailures);
      return;
    }
    if ((intent & Intent.written) !== 0) {
      this.#obeyWritten(stripe);
    }
    if ((intent & Intent.fetch) !== 0) {
      this.#touches?.note(stripe);
      this.fetcher.demand(stripe);
    }
    if ((intent & Intent.touched) !== 0) {
      this.#touches?.note(stripe);
      this.fetcher.touched(stripe);
    }
  }

  #obeyWritten(stripe: number): void {
    const byte = this.#state.load(stripe);
    const phase = phaseOf(byte);
    if ((byte & WRITTEN_BIT) !== 0 || isClaimed(byte)) {
      return; // there, or comes with the claim
    }
    if (phase === Phase.ready || phase === Phase.onBase) {
      this.commit.add(stripe, this.#writtenBits);
    } else {
      this.#wantsWritten.add(stripe);
    }
  }

  // --- internal: what fetcher and commit tell ---

  #addFetched(stripe: number, baseFailures: number): void {
    const isReplaced = isClaimed(this.#state.load(stripe));
    const isWritten = this.#wantsWritten.delete(stripe) || (isReplaced && this.#isWrittenTracked);
    this.commit.addFetched(stripe, isWritten ? this.#writtenBits : 0, baseFailures);
  }

  #gaveUp(stripe: number, result: number): void {
    this.#wantsWritten.delete(stripe);
    this.#failed.add(stripe);
    this.fetcher.background.failed(this.#nowMs);
    this.#host.report("stripe_fetch_failed", stripe, result);
  }

  #committed(stripe: number, bits: number): void {
    if ((bits & this.#writtenBits) !== 0) {
      this.#state.setWritten(stripe); // what it lacked of them is there
      this.#state.count("written", (bits & WRITTEN) === 0 ? 0 : 1);
    }
    if ((bits & FETCHED) !== 0) {
      this.#state.setPhase(stripe, Phase.ready);
      this.#state.count("fetched", 1);
      this.#state.count("unfetched", -1);
      this.#failed.delete(stripe);
      this.fetcher.forget(stripe);
      this.fetcher.background.succeeded();
    }
  }

  #commitFailed(stripe: number, bits: number, isBaseFailure: boolean): void {
    const phase = phaseOf(this.#state.load(stripe));
    if (phase === Phase.claimed) {
      this.#state.fail(stripe, Phase.lost);
    } else if ((bits & FETCHED) !== 0 && isBaseFailure) {
      if ((bits & this.#writtenBits) !== 0) {
        this.#wantsWritten.add(stripe);
      }
      this.fetcher.failed(stripe, EIO); // its data is written anew
      return;
    } else if ((bits & FETCHED) !== 0) {
      this.#state.fail(stripe, Phase.failed);
      this.#failed.add(stripe);
    } else {
      this.#state.fail(stripe, phase); // only WRITTEN: the data stays where it is
    }
    this.#host.report("stripe_commit_failed", stripe, EIO);
  }
}
