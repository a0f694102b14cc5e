/**
 * The disk of a stripe server as a source: its metadata are got once, in the main thread; one worker fetches
 * stripes over several connections (remote-fetcher.ts) and checks that each leads to the same disk.
 */
import type { ResolvedSecrets, SecretReference } from "../config/resolve-secrets.ts";
import { assert, errorText } from "../errors.ts";
import { log } from "../log.ts";
import { AddressBook } from "../remote/address-book.ts";
import { RemoteClient } from "../remote/remote-client.ts";
import { isHeld, type RemoteDisk } from "../remote/remote-disk.ts";
import {
  isLiteral,
  parseServerAddress,
  resolveServer,
  type ServerAddress,
  serverName,
} from "../remote/server-address.ts";
import type { OpenedSource, SourceStart } from "./opened-source.ts";
import { type RemoteWorkerData, tlsOf } from "./remote-worker.ts";
import { RequestBoard } from "./request-board.ts";
import { SourceWorkers } from "./source-workers.ts";

/** `[stripe_source]` of type remote. */
export interface RemoteSettings {
  readonly address: string;
  readonly psk?: { readonly identity: string; readonly secret: SecretReference } | undefined;
  readonly connectTimeoutMs: number;
  readonly operationAttemptTimeoutMs: number;
  readonly connections: number;
}

/**
 * @param secrets those of `[stripe_source]` among them
 * @throws UbiError E_REMOTE, E_REMOTE_PSK
 */
export async function openRemoteSource(
  settings: RemoteSettings,
  secrets: ResolvedSecrets,
): Promise<OpenedSource> {
  const address = parseServerAddress(settings.address);
  const { psk } = settings;
  if (psk === undefined) {
    log.warn("the connection to the stripe server is not encrypted", {
      server: serverName(address),
    });
  }
  const secret = psk === undefined ? undefined : sharedCopy(secrets.get(psk.secret).bytes);
  const key =
    psk === undefined || secret === undefined ? undefined : { identity: psk.identity, secret };
  try {
    using tls = tlsOf(key);
    using client = await RemoteClient.connect({
      address,
      tls,
      connectTimeoutMs: settings.connectTimeoutMs,
      operationTimeoutMs: settings.operationAttemptTimeoutMs,
    });
    const book = new AddressBook();
    book.write(await resolveServer(address));
    return new RemoteSource({ settings, address, key, book, disk: client.disk });
  } catch (error) {
    wipe(key);
    throw error;
  }
}

// --- internal ---

/** Between looks whether the server's name means other addresses by now. */
const REFRESH_MS = 10_000;

interface Parts {
  readonly settings: RemoteSettings;
  readonly address: ServerAddress;
  readonly key: RemoteWorkerData["psk"];
  readonly book: AddressBook;
  readonly disk: RemoteDisk;
}

class RemoteSource implements OpenedSource {
  readonly name: string;
  readonly sectors: number;
  readonly stripeSectors: number;
  readonly #parts: Parts;
  /** A byte a stripe: 1 when the server holds it. */
  readonly #held: Uint8Array<SharedArrayBuffer>;
  #timer: NodeJS.Timeout | undefined;

  constructor(parts: Parts) {
    const { flags, stripeShift } = parts.disk;
    this.#parts = parts;
    this.name = `stripe server ${serverName(parts.address)}`;
    this.stripeSectors = 2 ** stripeShift;
    const end = flags.findLastIndex(isHeld) + 1;
    this.sectors = end * this.stripeSectors;
    this.#held = new Uint8Array(new SharedArrayBuffer(end));
    for (let stripe = 0; stripe < end; stripe += 1) {
      this.#held[stripe] = isHeld(flags[stripe] ?? 0) ? 1 : 0;
    }
  }

  has(stripe: number): boolean {
    return this.#held[stripe] === 1;
  }

  start({ requestsMax, onFailure }: SourceStart): SourceWorkers {
    assert(this.#timer === undefined, "a source is started once");
    const { settings, address, key, book, disk } = this.#parts;
    const board = RequestBoard.create(requestsMax, 1);
    const data: RemoteWorkerData = {
      board,
      address,
      book: book.shared,
      psk: key,
      connectTimeoutMs: settings.connectTimeoutMs,
      operationTimeoutMs: settings.operationAttemptTimeoutMs,
      connections: Math.min(settings.connections, requestsMax),
      identity: disk.identity,
    };
    const { sectors, stripeSectors } = this;
    const workers = new SourceWorkers({
      role: "remote-source",
      description: { board, held: this.#held.buffer, sectors, stripeSectors },
      data: [data],
      onFailure,
    });
    if (!isLiteral(address)) {
      this.#timer = setInterval(() => void this.#refresh(workers), REFRESH_MS);
      this.#timer.unref();
    }
    return workers;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer);
    wipe(this.#parts.key);
  }

  // --- internal ---

  async #refresh(workers: SourceWorkers): Promise<void> {
    if (!workers.isTroubled) {
      return;
    }
    try {
      this.#parts.book.write(await resolveServer(this.#parts.address));
    } catch (error) {
      log.debug("the addresses of the stripe server stay as they are", {
        reason: errorText(error),
      });
    }
  }
}

function wipe(key: RemoteWorkerData["psk"]): void {
  if (key !== undefined) {
    new Uint8Array(key.secret).fill(0);
  }
}

/** Workers get it without another copy in a message. */
function sharedCopy(bytes: Uint8Array): SharedArrayBuffer {
  const copy = new Uint8Array(new SharedArrayBuffer(bytes.length));
  copy.set(bytes);
  return copy.buffer;
}
