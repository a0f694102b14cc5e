/**
 * Serves the clients of a listening socket on Bun's event loop: at most so many at a time. When there are as many, one that
 * has long asked for nothing makes room for the next; without such a one a few more are told that there are too many, and
 * all others are closed at once. What is spoken is the business of each client's connection.
 */
import { assert } from "../errors.ts";
import { LogLimiter, log } from "../log.ts";

const CHECK_INTERVAL_MS = 1_000;
/** Longer than between two questions of a program that watches. */
export const YIELD_MS = 10_000;

/** What a connection needs of its socket. */
export interface ClientSocket {
  /** Takes what fits, without waiting or buffering. Negative: the client has gone, and no event will tell so. */
  write(bytes: Uint8Array): number;
  pause(): void;
  resume(): void;
  /** Ends our side only. */
  shutdown(): void;
  /** Closes at once. */
  terminate(): void;
}

/** A client, told what happens at its socket. */
export interface ClientConnection {
  /** False from when the client is being dropped. */
  readonly isServed: boolean;
  /** For how long the client has asked for nothing, and has no answer to come. */
  readonly idleMs: number;
  /** Bytes came in. */
  receive(bytes: Uint8Array): void;
  /** The client sends no more. */
  finish(): void;
  /** The socket takes bytes again. */
  drain(): void;
  /** The socket is gone. */
  closed(): void;
  /** Tells why the client is not served, then closes. */
  refuse(message: string): void;
  /** Looks at the clock; called about once a second. */
  checkTime(): void;
}

export interface ClientServerOptions {
  /** Of a listening socket. Bun closes it at the end. */
  readonly fd: number;
  /** Where it listens, and what clients come for: for the log. */
  readonly place: string;
  readonly what: string;
  /** Clients that are served at a time; as many further ones are being told that there are too many. */
  readonly clientsMax: number;
  readonly connect: (socket: ClientSocket) => ClientConnection;
}

/** Undefined until the client is taken on. */
type Client = ClientConnection | undefined;
type Socket = Bun.Socket<Client>;

export class ClientServer implements Disposable {
  readonly #options: ClientServerOptions;
  readonly #listener: Bun.SocketListener<Client>;
  readonly #clients = new Map<Socket, ClientConnection>();
  readonly #limiter = new LogLimiter();
  #timer: NodeJS.Timeout | undefined;

  /** Serves until it is disposed. */
  constructor(options: ClientServerOptions) {
    this.#options = options;
    this.#listener = listenOn(options.fd, {
      open: (client) => this.#open(client),
      data: (client, bytes) => client.data?.receive(bytes),
      drain: (client) => client.data?.drain(),
      end: (client) => client.data?.finish(),
      close: (client) => this.#close(client),
      error: (_client, error) => stopProcess(error),
    });
  }

  /** Another process serves the socket from here on; clients that are here stay. */
  stopListening(): void {
    this.#listener.stop(false);
  }

  /** Drops the clients and closes the socket. */
  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    this.#listener.stop(true);
    for (const [socket, connection] of this.#clients) {
      connection.closed();
      socket.terminate();
    }
    this.#clients.clear();
  }

  // --- internal ---

  #open(socket: Socket): void {
    const { place, what, clientsMax, connect } = this.#options;
    if (this.#clients.size >= 2 * clientsMax) {
      socket.terminate();
      return;
    }
    const connection = connect({
      write: (bytes) => socket.write(bytes),
      pause: () => socket.pause(),
      resume: () => socket.resume(),
      shutdown: () => socket.shutdown(),
      terminate: () => socket.terminate(),
    });
    socket.data = connection;
    const served = this.#makeRoom();
    this.#clients.set(socket, connection);
    this.#timer ??= setInterval(() => this.#checkTime(), CHECK_INTERVAL_MS);
    if (served >= clientsMax) {
      this.#limiter.warn(`${what} client refused`, { socket: place, clients: clientsMax });
      connection.refuse(`too many clients: ${clientsMax} are served at a time; try again later`);
    } else {
      log.debug(`${what} client connected`, { socket: place });
    }
  }

  /** How many clients are served then. */
  #makeRoom(): number {
    const { place, what, clientsMax } = this.#options;
    const served = [...this.#clients.values()].filter((client) => client.isServed);
    const [idlest] = served.toSorted((a, b) => b.idleMs - a.idleMs);
    if (served.length < clientsMax || idlest === undefined || idlest.idleMs < YIELD_MS) {
      return served.length;
    }
    this.#limiter.info(`idle ${what} client makes room`, { socket: place, clients: clientsMax });
    idlest.refuse("no request for some time, and others came; connect again");
    return served.length - 1;
  }

  #close(socket: Socket): void {
    socket.data?.closed();
    this.#clients.delete(socket);
    if (this.#clients.size === 0) {
      clearInterval(this.#timer);
      this.#timer = undefined;
    }
  }

  #checkTime(): void {
    for (const connection of [...this.#clients.values()]) {
      connection.checkTime();
    }
  }
}

// --- internal ---

/** Bun takes an open listening descriptor, and closes it at the end; its types tell it of clients only. */
function listenOn(fd: number, handler: Bun.SocketHandler<Client>): Bun.SocketListener<Client> {
  const options: Bun.FdSocketOptions<Client> = { fd, allowHalfOpen: true, socket: handler };
  const listener = Bun.listen<Client>(options as typeof options & Bun.UnixSocketOptions<Client>);
  assert("fd" in listener && listener.fd === fd, "Bun listens at the descriptor it was given");
  return listener;
}

/** A handler threw, which is a programmer error; Bun would print it and go on. */
function stopProcess(error: Error): void {
  process.nextTick(() => {
    throw error;
  });
}
