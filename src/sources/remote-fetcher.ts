/**
 * Serves the requests of a board from a stripe server over several connections, all in one loop that polls.
 *
 *   board -> a connection with the fewest reads under way -> done
 *     ^ a connection was lost: others take what it had, in the order of the board
 *
 * A read is lost with at most eleven connections, or refused by a failing server three times. Requests that find no
 * connection wait for one; when each place has dialled in vain for some two minutes they fail, later ones after
 * seconds, and dialling goes on.
 */
import { clockNs, drainEvent } from "../ffi/event.ts";
import { PollSet } from "../ffi/socket.ts";
import { u8 } from "../ffi/view.ts";
import { STATUS, statusText } from "../formats/stripe-protocol.ts";
import { LogLimiter } from "../log.ts";
import { READ_BROKEN } from "../remote/read-owner.ts";
import type { RemoteIdentity } from "../remote/remote-disk.ts";
import type { ConnectionSettings, StripeConnection } from "../remote/stripe-connection.ts";
import { DIALS_MAX, RemoteSlot, type SlotOwner } from "./remote-slot.ts";
import type { RequestBoard } from "./request-board.ts";

export interface RemoteFetcherOptions {
  /** This thread is its only worker. */
  readonly board: RequestBoard;
  readonly settings: ConnectionSettings;
  /** Literal addresses of the server, as they are known now. */
  readonly hosts: () => readonly string[];
  readonly identity: RemoteIdentity;
  readonly connections: number;
}

/** Reads under way on one connection: the next ones are at the server, which reads them, while an answer comes. */
const PIPELINE_MAX = 4;
/** A failing server may do better when it is asked again, but not for ever. */
const REFUSAL_LOSSES = 4;
/** Requests wait so long for a dial when dials have failed for minutes. */
const LAST_HOPE_MS = 5_000;
const EIO = -5;
const ECANCELED = -125;

export class RemoteFetcher implements SlotOwner, Disposable {
  readonly settings: ConnectionSettings;
  identity: RemoteIdentity;
  readonly hosts: () => readonly string[];
  readonly #board: RequestBoard;
  readonly #slots: readonly RemoteSlot[];
  readonly #poll: PollSet;
  readonly #wakeFd: number;
  /** By id: connections that were lost with the read, until it is done. */
  readonly #losses: Uint8Array;
  readonly #isTaken: Uint8Array;
  readonly #limiter = new LogLimiter();
  #isTroubled = false;
  #name = "";
  /** A connection failed in this turn. */
  #hasFailed = false;
  /** When requests are failed for which there is no hope; Infinity while there is, or are none. */
  #giveUpMs = Number.POSITIVE_INFINITY;
  /** The last one that failed led to another disk. */
  #isForeign = false;
  #serving: RemoteSlot | undefined;

  constructor(options: RemoteFetcherOptions) {
    const { board, settings, hosts, identity, connections } = options;
    const { requestsMax, workerFds } = board.shared;
    this.settings = settings;
    this.hosts = hosts;
    this.identity = identity;
    this.#board = board;
    this.#wakeFd = workerFds[0] ?? -1;
    this.#losses = new Uint8Array(requestsMax);
    this.#isTaken = new Uint8Array(requestsMax);
    this.#slots = Array.from({ length: connections }, () => new RemoteSlot(this));
    this.#poll = new PollSet(connections + 1);
  }

  /** One turn of the loop: whatever can go on goes on, then it waits. False when the board was stopped. */
  turn(): boolean {
    const nowMs = clockNs() / 1e6;
    this.#runSlots(nowMs);
    this.#distribute(nowMs);
    this.#giveUp(nowMs);
    this.#noteTrouble();
    if (this.#board.isStopped) {
      return false;
    }
    this.#wait();
    return true;
  }

  /** Connections are closed: memory of requests is not written any more. */
  [Symbol.dispose](): void {
    for (const slot of this.#slots) {
      slot[Symbol.dispose]();
    }
    for (let id = 0; id < this.#isTaken.length; id++) {
      if (u8(this.#isTaken, id) === 1) {
        this.#finish(id, ECANCELED);
      }
    }
    this.#poll[Symbol.dispose]();
  }

  // What slots and their connections tell:

  readEnded(id: number, status: number): void {
    if (status !== READ_BROKEN) {
      this.#serving?.noteServed();
    }
    if (status === STATUS.OK) {
      this.#finish(id, 0);
      return;
    }
    const stripe = this.#board.stripe(id);
    const reason = status === READ_BROKEN ? "no valid answer" : statusText(status);
    this.#limiter.warn("the stripe server does not have a stripe", { stripe, reason });
    this.#finish(id, EIO);
  }

  noteRetry(): void {
    this.#board.noteRetry();
  }

  connectionEnded(connection: StripeConnection): void {
    this.#name = connection.name;
    if (connection.failure !== undefined) {
      this.#hasFailed = true;
      this.#isForeign = connection.isForeign;
      this.#limiter.warn("a connection to the stripe server was lost or not made", {
        reason: connection.failure.message,
      });
    }
    for (const [index, id] of connection.unanswered.entries()) {
      const isRefused = connection.isRefused && index === 0;
      const losses = u8(this.#losses, id) + (isRefused ? REFUSAL_LOSSES : 1);
      if (losses > DIALS_MAX) {
        const stripe = this.#board.stripe(id);
        this.#limiter.warn("a stripe was asked for too often in vain", { stripe });
        this.#finish(id, EIO);
      } else {
        this.#losses[id] = losses;
        this.#isTaken[id] = 0;
        this.#board.putBack(id);
      }
    }
  }

  // --- internal ---

  #runSlots(nowMs: number): void {
    for (let i = 0; i < this.#slots.length; i++) {
      const slot = this.#slots[i];
      if (slot === undefined) {
        continue;
      }
      this.#serving = slot;
      const wasReady = slot.isReady;
      slot.run(nowMs, this.#poll.events(i + 1) !== 0);
      if (!wasReady && slot.isReady) {
        // What a server fetched meanwhile changed its metadata; the next connection need not get them again.
        this.identity = slot.connection?.disk?.identity ?? this.identity;
      }
    }
    this.#serving = undefined;
  }

  #distribute(nowMs: number): void {
    for (;;) {
      const slot = this.#leastBusy();
      const id = slot === undefined ? -1 : this.#take();
      if (slot?.connection === undefined || id < 0) {
        break;
      }
      slot.connection.read(id, this.#board.stripe(id), this.#board.address(id), nowMs);
    }
    this.#flush(nowMs);
    this.#wakeSlots();
  }

  #flush(nowMs: number): void {
    for (const slot of this.#slots) {
      if (slot.isReady) {
        slot.connection?.flush();
        slot.settle(nowMs);
      }
    }
  }

  #leastBusy(): RemoteSlot | undefined {
    let best: RemoteSlot | undefined;
    let bestReads = PIPELINE_MAX;
    for (const slot of this.#slots) {
      const reads = slot.isReady ? (slot.connection?.readsUnderWay ?? 0) : PIPELINE_MAX;
      if (reads < bestReads) {
        best = slot;
        bestReads = reads;
      }
    }
    return best;
  }

  #take(): number {
    const id = this.#board.take();
    if (id >= 0) {
      this.#isTaken[id] = 1;
    }
    return id;
  }

  #finish(id: number, result: number): void {
    this.#isTaken[id] = 0;
    this.#losses[id] = 0;
    this.#board.finish(id, result);
  }

  /** Requests without a connection, and reads behind others, want more connections. */
  #wakeSlots(): void {
    const isReady = this.#slots.some((slot) => slot.isReady);
    const queued = this.#board.queuedCount;
    let wanted = isReady || queued === 0 ? queued : this.#slots.length;
    for (const slot of this.#slots) {
      const reads = slot.isReady ? (slot.connection?.readsUnderWay ?? 0) : 0;
      wanted += Math.max(0, reads - 1);
    }
    for (const slot of this.#slots) {
      if (wanted > 0 && slot.connection === undefined) {
        slot.wake();
        wanted -= 1;
      }
    }
  }

  /**
   * Every place has dialled too often, or the address leads to another disk: nobody is to wait any longer than for
   * the next dial, and that may be one that hangs.
   */
  #giveUp(nowMs: number): void {
    const hasFailed = this.#hasFailed;
    this.#hasFailed = false;
    const hasHope = this.#isForeign
      ? this.#slots.some((slot) => slot.isReady)
      : this.#slots.some((slot) => !slot.isGivenUp);
    if (hasHope || this.#board.queuedCount === 0) {
      this.#giveUpMs = Number.POSITIVE_INFINITY;
      return;
    }
    this.#giveUpMs = hasFailed ? nowMs : Math.min(this.#giveUpMs, nowMs + LAST_HOPE_MS);
    if (nowMs < this.#giveUpMs) {
      return;
    }
    this.#giveUpMs = Number.POSITIVE_INFINITY;
    for (let id = this.#take(); id >= 0; id = this.#take()) {
      this.#limiter.warn(
        "a stripe cannot be fetched: there is no connection to the stripe server",
        {
          stripe: this.#board.stripe(id),
        },
      );
      this.#finish(id, EIO);
    }
  }

  #noteTrouble(): void {
    const isReady = this.#slots.some((slot) => slot.isReady);
    const isTroubled = !isReady && this.#slots.some((slot) => slot.hasFailed);
    if (isTroubled !== this.#isTroubled) {
      this.#isTroubled = isTroubled;
      this.#board.setTroubled(isTroubled);
      if (!isTroubled) {
        this.#limiter.info("the stripe server is reached again", { server: this.#name });
      }
    }
  }

  #wait(): void {
    let dueMs = this.#giveUpMs;
    this.#poll.watch(0, this.#wakeFd);
    for (let i = 0; i < this.#slots.length; i++) {
      const slot = this.#slots[i];
      const connection = slot?.connection;
      this.#poll.watch(i + 1, connection?.fd ?? -1, connection?.events ?? 0);
      dueMs = Math.min(dueMs, slot?.dueMs ?? dueMs);
    }
    const leftMs = dueMs - clockNs() / 1e6;
    this.#poll.wait(leftMs === Number.POSITIVE_INFINITY ? -1 : Math.max(0, Math.ceil(leftMs)));
    drainEvent(this.#wakeFd);
  }
}
