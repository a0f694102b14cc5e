/**
 * One connection to a stripe server for a thread with an event loop, such as a tool: it reads a stripe at a time.
 * The thread waits in small steps, so that signals and timers go on.
 */
import { assert, UbiError } from "../errors.ts";
import { clockNs } from "../ffi/event.ts";
import { PollSet } from "../ffi/socket.ts";
import { STATUS, statusText } from "../formats/stripe-protocol.ts";
import { READ_BROKEN } from "./read-owner.ts";
import type { RemoteDisk } from "./remote-disk.ts";
import { resolveServer } from "./server-address.ts";
import { type ConnectionSettings, StripeConnection } from "./stripe-connection.ts";

/** Waited for the descriptor before others of the thread have their turn. */
const STEP_MS = 2;

export class RemoteClient implements Disposable {
  readonly disk: RemoteDisk;
  readonly #connection: StripeConnection;
  readonly #poll: PollSet;
  readonly #ends: Ends;
  #isBusy = false;

  /**
   * Connects, and gets the metadata.
   * @throws UbiError E_REMOTE, E_REMOTE_PSK
   */
  static async connect(settings: ConnectionSettings, signal?: AbortSignal): Promise<RemoteClient> {
    const hosts = await resolveServer(settings.address);
    const ends = new Ends();
    const connection = new StripeConnection(settings, {
      hosts,
      known: undefined,
      owner: ends,
      nowMs: nowMs(),
    });
    const poll = new PollSet(1);
    try {
      await drive(connection, poll, {
        isDone: () => connection.phase === "ready",
        signal,
      });
      return new RemoteClient(connection, poll, ends);
    } catch (error) {
      connection[Symbol.dispose]();
      poll[Symbol.dispose]();
      throw error;
    }
  }

  private constructor(connection: StripeConnection, poll: PollSet, ends: Ends) {
    assert(connection.disk !== undefined, "a new connection has got metadata");
    this.disk = connection.disk;
    this.#connection = connection;
    this.#poll = poll;
    this.#ends = ends;
  }

  /** The server, as messages name it. */
  get name(): string {
    return this.#connection.name;
  }

  /** The connection is gone; a new client may be made. */
  get isEnded(): boolean {
    return this.#connection.phase === "ended";
  }

  /**
   * Fills the memory at `address` with a whole stripe; one at a time.
   * @returns STATUS.OK, or why the server has no data: OUT_OF_RANGE, NO_DATA or NOT_FETCHED
   * @throws UbiError E_REMOTE when the connection is lost; what the signal says, and then it is gone as well
   */
  async read(stripe: number, address: number, signal?: AbortSignal): Promise<number> {
    assert(!this.#isBusy, "a client reads a stripe at a time");
    this.#ends.status = undefined;
    this.#isBusy = true;
    try {
      // What happened since the last read is seen first: the server may have closed the connection.
      this.#connection.run(nowMs(), true);
      if (this.#connection.phase === "ready") {
        this.#connection.read(0, stripe, address, nowMs());
        this.#connection.flush();
      }
      await drive(this.#connection, this.#poll, {
        isDone: () => this.#ends.status !== undefined,
        signal,
      });
    } catch (error) {
      this.#connection[Symbol.dispose](); // it would still write to the memory
      throw error;
    } finally {
      this.#isBusy = false;
    }
    const status = this.#ends.status ?? READ_BROKEN;
    if (status === READ_BROKEN) {
      throw this.#connection.failure ?? lost(this.#connection);
    }
    return status;
  }

  [Symbol.dispose](): void {
    this.#connection[Symbol.dispose]();
    this.#poll[Symbol.dispose]();
  }
}

/** Why a server has no data for a stripe, as an error. */
export function noDataError(name: string, stripe: number, status: number): UbiError {
  const what =
    status === STATUS.OUT_OF_RANGE
      ? `Invalid stripe index: ${stripe}`
      : `Stripe ${stripe} is unavailable`;
  return new UbiError("E_REMOTE", `${name}: ${what}: ${statusText(status)}`);
}

// --- internal ---

class Ends {
  status: number | undefined;

  readEnded(_id: number, status: number): void {
    this.status = status;
  }
}

function nowMs(): number {
  return clockNs() / 1e6;
}

function lost(connection: StripeConnection): UbiError {
  return new UbiError("E_REMOTE", `${connection.name}: it closed the connection`);
}

/** Runs the connection until `isDone`. @throws UbiError when it ends before */
async function drive(
  connection: StripeConnection,
  poll: PollSet,
  until: { readonly isDone: () => boolean; readonly signal: AbortSignal | undefined },
): Promise<void> {
  while (!until.isDone()) {
    if (connection.phase === "ended") {
      throw connection.failure ?? lost(connection);
    }
    until.signal?.throwIfAborted();
    poll.watch(0, connection.fd, connection.events);
    const isReady = poll.wait(connection.dueMs <= nowMs() ? 0 : STEP_MS) > 0;
    connection.run(nowMs(), isReady);
    if (!isReady) {
      await Bun.sleep(0);
    }
  }
}
