/** The thread that fetches stripes from a stripe server: one loop over all connections. */
import { nameThread } from "../ffi/process.ts";
import { TlsContext } from "../ffi/tls.ts";
import { AddressBook, type SharedAddressBook } from "../remote/address-book.ts";
import type { RemoteIdentity } from "../remote/remote-disk.ts";
import type { ServerAddress } from "../remote/server-address.ts";
import { RemoteFetcher } from "./remote-fetcher.ts";
import { RequestBoard, type SharedBoard } from "./request-board.ts";
import { SOURCE_WORKER_STOPPED } from "./source-workers.ts";

/** What the worker is started with; cloneable. */
export interface RemoteWorkerData {
  readonly board: SharedBoard;
  readonly address: ServerAddress;
  readonly book: SharedAddressBook;
  /** The secret is wiped when the source is closed. */
  readonly psk: { readonly identity: string; readonly secret: SharedArrayBuffer } | undefined;
  readonly connectTimeoutMs: number;
  readonly operationTimeoutMs: number;
  readonly connections: number;
  readonly identity: RemoteIdentity;
}

/** Runs until the board is stopped. */
export function runRemoteWorker(data: RemoteWorkerData): void {
  nameThread("remote-source");
  runFetcher(data);
  postMessage(SOURCE_WORKER_STOPPED);
}

/** The key of a client; nothing where connections are in the clear. */
export function tlsOf(psk: RemoteWorkerData["psk"]): TlsContext | undefined {
  return psk === undefined
    ? undefined
    : new TlsContext("client", {
        identity: new TextEncoder().encode(psk.identity),
        secret: new Uint8Array(psk.secret),
      });
}

// --- internal ---

function runFetcher(data: RemoteWorkerData): void {
  const { address, connectTimeoutMs, operationTimeoutMs, connections, identity } = data;
  const book = new AddressBook(data.book);
  using tls = tlsOf(data.psk);
  using fetcher = new RemoteFetcher({
    board: new RequestBoard(data.board),
    settings: { address, tls, connectTimeoutMs, operationTimeoutMs },
    hosts: () => book.read(),
    identity,
    connections,
  });
  while (fetcher.turn()) {
    // Everything happens in a turn.
  }
}
