/**
 * A stripe server as the main thread sees it: opens the listening sockets, starts the thread that serves, watches
 * over it, stops it.
 */
import { readFileSync } from "node:fs";
import type { Secret } from "../config/secret.ts";
import { Heartbeat } from "../device/heartbeat.ts";
import { errnoText, UbiError } from "../errors.ts";
import { createEvent, signalEvent } from "../ffi/event.ts";
import { closeDescriptor, type SocketRights } from "../ffi/socket.ts";
import { ListeningSocket } from "../ffi/socket-file.ts";
import { listenStream, portOf } from "../ffi/stream.ts";
import { spawnWorker } from "../ffi/worker.ts";
import { failureLine } from "../ffi/worker-failure.ts";
import { log } from "../log.ts";
import { resolveServer, type ServerAddress, serverName } from "../remote/server-address.ts";
import type { ServedDisk } from "./served-disk.ts";
import { metadataAnswer } from "./served-metadata.ts";
import type { ServerStatistics } from "./server-statistics.ts";
import type { Listener, ServerMessage, ServerWorkerData } from "./server-worker.ts";
import type { SessionLimits } from "./session-limits.ts";

export interface StripeServerOptions {
  /** One or both; nothing is done with them where there are `inherited` sockets. */
  readonly addresses: readonly ServerAddress[];
  readonly unixRights: SocketRights;
  /** Sockets that listen already. */
  readonly inherited: readonly (Listener & ListeningPlace)[];
  /** Copied; the caller wipes its own. */
  readonly psk: { readonly identity: string; readonly secret: Secret } | undefined;
  readonly limits: SessionLimits;
  readonly connectionsMax: number;
  /** With a place for each of the connections; the thread writes it from its start to its end. */
  readonly statistics: ServerStatistics;
}

export interface ListeningPlace {
  /** `address:port` with the real port, or the path of the Unix socket. */
  readonly name: string;
  /** Only programs of this host can connect. */
  readonly isLocal: boolean;
}

const BACKLOG = 1024;
/** Files that the process has beside those of clients: its own, those of the disk, connections of its source. */
const FILES_SPARE = 96;

export class StripeServer {
  /** Where it listens. */
  readonly places: readonly ListeningPlace[];
  /** Of the thread. */
  readonly heartbeat = new Heartbeat();
  readonly #listeners: readonly OpenListener[];
  readonly #wakeFd = createEvent();
  readonly #stop = new SharedArrayBuffer(4);
  readonly #worker: Worker;
  readonly #ready = Promise.withResolvers<void>();
  readonly #ended = Promise.withResolvers<void>();
  #isStopping = false;

  /** @throws UbiError E_SOCKET*, E_REMOTE, E_WORKER, E_MEMORY */
  static async start(disk: ServedDisk, options: StripeServerOptions): Promise<StripeServer> {
    const listeners = await listen(options);
    const server = new StripeServer(disk, options, listeners);
    await server.#ready.promise;
    return server;
  }

  private constructor(
    disk: ServedDisk,
    options: StripeServerOptions,
    listeners: readonly OpenListener[],
  ) {
    this.#listeners = listeners;
    this.places = listeners;
    for (const { promise } of [this.#ready, this.#ended]) {
      promise.catch(() => {}); // whoever awaits `ended` or `start` sees it
    }
    const data: ServerWorkerData = {
      stripes: disk.stripes,
      metadata: metadataAnswer(disk.metadata),
      listeners: listeners.map(({ fd, name }) => ({ fd, name })),
      limits: options.limits,
      connectionsMax: withinFileLimit(options.connectionsMax),
      statistics: {
        shared: options.statistics.shared,
        placesMax: options.statistics.placesMax,
      },
      psk: shareSecret(options.psk),
      wakeFd: this.#wakeFd,
      pulse: this.heartbeat.add("stripe-server", this.#wakeFd),
      stop: this.#stop,
    };
    this.#worker = spawnWorker("stripe-server", data);
    this.#watch();
  }

  /** It takes no more requests. */
  get isStopping(): boolean {
    return this.#isStopping;
  }

  /** Resolves when all is stopped after `stop`; rejects when the thread fails. */
  get ended(): Promise<void> {
    return this.#ended.promise;
  }

  /** Takes no more requests, sends the answers under way for a bounded time, closes. Resolves as `ended` does. */
  async stop(): Promise<void> {
    this.#isStopping = true;
    Atomics.store(new Int32Array(this.#stop), 0, 1);
    signalEvent(this.#wakeFd);
    await this.ended;
    this.#worker.unref();
    for (const listener of this.#listeners) {
      listener.close();
    }
    closeDescriptor(this.#wakeFd);
  }

  /** Something that the server depends on has failed. */
  fail(message: string): void {
    const error = new UbiError("E_WORKER", message);
    this.#ready.reject(error);
    this.#ended.reject(error);
  }

  // --- internal ---

  #watch(): void {
    this.#worker.addEventListener("message", (event: MessageEvent<ServerMessage>) => {
      if (event.data === "ready") {
        this.#ready.resolve();
      } else {
        this.#ended.resolve();
      }
    });
    this.#worker.addEventListener("error", (event) =>
      this.fail(`the stripe-server thread failed: ${failureLine(event.message)}`),
    );
    this.#worker.addEventListener("close", () => {
      if (!this.#isStopping) {
        this.fail("the stripe-server thread ended by itself");
      }
    });
  }
}

// --- internal ---

interface OpenListener extends Listener, ListeningPlace {
  readonly close: () => void;
}

async function listen(options: StripeServerOptions): Promise<readonly OpenListener[]> {
  const { addresses, unixRights, inherited } = options;
  if (inherited.length > 0) {
    return inherited.map((place) => ({ ...place, close: () => closeDescriptor(place.fd) }));
  }
  const listeners: OpenListener[] = [];
  try {
    for (const address of addresses) {
      listeners.push(
        ...(address.kind === "tcp" ? await listenTcp(address) : [listenPath(address, unixRights)]),
      );
    }
    return listeners;
  } catch (error) {
    for (const listener of listeners) {
      listener.close();
    }
    throw error;
  }
}

/** At every address of the host; a port of 0 is chosen once. */
async function listenTcp(
  address: Extract<ServerAddress, { kind: "tcp" }>,
): Promise<readonly OpenListener[]> {
  const listeners: OpenListener[] = [];
  let { port } = address;
  for (const host of new Set(await resolveServer(address))) {
    const fd = listenStream(host, port, BACKLOG);
    if (fd < 0) {
      for (const listener of listeners) {
        listener.close();
      }
      throw cannotListen(serverName({ kind: "tcp", host, port }), fd);
    }
    port = portOf(fd);
    const name = serverName({ kind: "tcp", host, port });
    const isLocal = host === "::1" || host.startsWith("127.");
    listeners.push({ fd, name, isLocal, close: () => closeDescriptor(fd) });
  }
  return listeners;
}

function listenPath(
  { path }: Extract<ServerAddress, { kind: "unix" }>,
  rights: SocketRights,
): OpenListener {
  const socket = ListeningSocket.open({ path, rights });
  return { fd: socket.fd, name: path, isLocal: true, close: () => socket[Symbol.dispose]() };
}

function cannotListen(name: string, result: number): UbiError {
  const isTaken = result === EADDRINUSE;
  const hint = isTaken ? "; stop that program or choose another port" : "; check [server].address";
  const why = isTaken ? "another program listens there" : errnoText(result);
  const code = isTaken ? "E_SOCKET_IN_USE" : "E_SOCKET";
  return new UbiError(code, `cannot listen at ${name}: ${why}${hint}`);
}

const EADDRINUSE = -98;

/** Each client is an open file, and so many cannot even be waited for as the process may not have. */
function withinFileLimit(connectionsMax: number): number {
  const limit = openFilesMax();
  const fitting = Math.max(1, limit - FILES_SPARE);
  if (fitting < connectionsMax) {
    log.warn("max_connections is more than the limit of open files allows; raise it (ulimit -n)", {
      max_connections: connectionsMax,
      used: fitting,
      open_files: limit,
    });
  }
  return Math.min(fitting, connectionsMax);
}

function openFilesMax(): number {
  try {
    const limits = readFileSync("/proc/self/limits", "latin1");
    const soft = /^Max open files +(\d+)/m.exec(limits)?.[1];
    return soft === undefined ? Number.POSITIVE_INFINITY : Number(soft);
  } catch {
    return Number.POSITIVE_INFINITY; // no /proc
  }
}

/** In memory that the thread wipes when it has made its keys of it. */
function shareSecret(psk: StripeServerOptions["psk"]): ServerWorkerData["psk"] {
  if (psk === undefined) {
    return undefined;
  }
  const secret = new SharedArrayBuffer(psk.secret.length);
  new Uint8Array(secret).set(psk.secret.bytes);
  return { identity: new TextEncoder().encode(psk.identity), secret };
}
