/**
 * A place for a connection to a stripe server: dials, and dials again after a pause when it was lost.
 *
 * The first dial after a success follows at once, the next ones after 0.5 s, 1 s, 2 s and so on up to 30 s. A
 * connection that the server closed while nothing was asked is not a failure: it is made again when it is needed.
 */
import type { ReadOwner } from "../remote/read-owner.ts";
import type { RemoteIdentity } from "../remote/remote-disk.ts";
import { type ConnectionSettings, StripeConnection } from "../remote/stripe-connection.ts";

/** Dials without success after which a server counts as gone. */
export const DIALS_MAX = 10;
const PAUSE_MIN_MS = 500;
const PAUSE_MAX_MS = 30_000;
/** Between dials, however much is wanted. */
const DIAL_INTERVAL_MS = 1000;

export class RemoteSlot {
  readonly #owner: SlotOwner;
  #connection: StripeConnection | undefined;
  #failures = 0;
  #dialDueMs = 0;
  #endedMs = 0;
  #isAsleep = false;
  #hasServed = false;

  constructor(owner: SlotOwner) {
    this.#owner = owner;
  }

  get connection(): StripeConnection | undefined {
    return this.#connection;
  }

  get isReady(): boolean {
    return this.#connection?.phase === "ready";
  }

  get isAsleep(): boolean {
    return this.#isAsleep;
  }

  get hasFailed(): boolean {
    return this.#failures > 0;
  }

  /** It was dialled too often, whether the next dial is under way or not; dials are rare by now. */
  get isGivenUp(): boolean {
    return !this.isReady && this.#failures > DIALS_MAX;
  }

  /** When `run` is due, whatever is ready. */
  get dueMs(): number {
    if (this.#connection !== undefined) {
      return this.#connection.dueMs;
    }
    return this.#isAsleep ? Number.POSITIVE_INFINITY : this.#dialDueMs;
  }

  /** Somebody waits for a connection. */
  wake(): void {
    this.#isAsleep = false;
    if (this.isGivenUp) {
      this.#dialDueMs = Math.min(this.#dialDueMs, this.#endedMs + DIAL_INTERVAL_MS);
    }
  }

  /** A read was answered, also by the word that there is no such data. */
  noteServed(): void {
    this.#hasServed = true;
    this.#failures = 0;
  }

  /** Goes on with the connection, or dials. */
  run(nowMs: number, isReady: boolean): void {
    if (this.#connection === undefined) {
      if (this.#isAsleep || nowMs < this.#dialDueMs) {
        return;
      }
      this.#dial(nowMs);
    } else {
      this.#connection.run(nowMs, isReady);
    }
    this.settle(nowMs);
  }

  /** Lets go of a connection that has ended. */
  settle(nowMs: number): void {
    const connection = this.#connection;
    if (connection?.phase !== "ended") {
      return;
    }
    this.#connection = undefined;
    this.#endedMs = nowMs;
    if (connection.failure === undefined) {
      this.#isAsleep = true;
      this.#dialDueMs = this.#hasServed ? nowMs : nowMs + PAUSE_MIN_MS;
    } else {
      this.#failures = connection.isForeign ? DIALS_MAX + 1 : this.#failures + 1;
      this.#dialDueMs = nowMs + pauseAfter(this.#failures);
    }
    this.#owner.connectionEnded(connection);
  }

  [Symbol.dispose](): void {
    this.#connection?.[Symbol.dispose]();
    this.#connection = undefined;
    this.#isAsleep = true;
  }

  // --- internal ---

  #dial(nowMs: number): void {
    if (this.#failures > 0) {
      this.#owner.noteRetry();
    }
    this.#hasServed = false;
    const { settings, identity } = this.#owner;
    const hosts = this.#owner.hosts();
    const context = { hosts, known: identity, owner: this.#owner, nowMs };
    this.#connection = new StripeConnection(settings, context);
  }
}

/** What a slot needs of whoever has it. */
export interface SlotOwner extends ReadOwner {
  readonly settings: ConnectionSettings;
  readonly identity: RemoteIdentity;
  hosts(): readonly string[];
  noteRetry(): void;
  connectionEnded(connection: StripeConnection): void;
}

// --- internal ---

/** Before the dial that follows failure number `failures`, from 1. */
function pauseAfter(failures: number): number {
  return failures === 1 ? 0 : Math.min(PAUSE_MIN_MS * 2 ** (failures - 2), PAUSE_MAX_MS);
}
