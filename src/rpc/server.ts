/**
 * The RPC socket on the main thread. The socket is made by the native library, which gives its file the
 * right mode before anybody can connect (Bun would go by the process's umask); Bun's event loop serves it.
 */
import { assert, UbiError } from "../errors.ts";
import { ListeningSocket } from "../ffi/socket-file.ts";
import { LogLimiter, log } from "../log.ts";
import { type AnswerRequest, answerLine } from "./answer-lines.ts";
import { RpcConnection } from "./connection.ts";

/** Clients that are served at a time. */
const CLIENTS_MAX = 16;
/** Further clients that are being told that there are too many; above this they are just closed. */
const REFUSED_MAX = 16;
const CHECK_INTERVAL_MS = 1_000;

/** Undefined until the client is taken on. */
type Client = RpcConnection | undefined;
type Socket = Bun.Socket<Client>;

export class RpcServer implements Disposable {
  readonly path: string;
  readonly #answer: AnswerRequest;
  readonly #socket: ListeningSocket;
  readonly #listener: Bun.SocketListener<Client>;
  readonly #clients = new Map<Socket, RpcConnection>();
  readonly #limiter = new LogLimiter();
  #timer: NodeJS.Timeout | undefined;

  /**
   * Serves at `path` until it is disposed.
   * @param key of the document that names the path, for messages
   * @throws UbiError E_SOCKET, E_SOCKET_IN_USE, E_SOCKET_NOT_OURS
   */
  static start(path: string, key: string, answer: AnswerRequest): RpcServer {
    return new RpcServer(openSocket(path, key), answer);
  }

  private constructor(socket: ListeningSocket, answer: AnswerRequest) {
    this.path = socket.path;
    this.#answer = answer;
    this.#socket = socket;
    this.#listener = listenOn(socket, {
      open: (client) => this.#open(client),
      data: (client, bytes) => client.data?.receive(bytes),
      drain: (client) => client.data?.drain(),
      end: (client) => client.data?.finish(),
      close: (client) => this.#close(client),
      error: (_client, error) => stopProcess(error),
    });
  }

  /** Drops the clients and removes the socket, unless another program put its own there. */
  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    this.#listener.stop(true);
    for (const [socket, connection] of this.#clients) {
      connection.closed();
      socket.terminate();
    }
    this.#clients.clear();
    this.#socket[Symbol.dispose]();
  }

  // --- internal ---

  #open(socket: Socket): void {
    if (this.#clients.size >= CLIENTS_MAX + REFUSED_MAX) {
      socket.terminate();
      return;
    }
    const connection = new RpcConnection({
      socket: {
        write: (bytes) => socket.write(bytes),
        pause: () => socket.pause(),
        resume: () => socket.resume(),
        shutdown: () => socket.shutdown(),
        terminate: () => socket.terminate(),
      },
      answer: (line) => answerLine(this.#answer, line),
      nowMs: () => performance.now(),
      defer: (task) => setImmediate(task),
    });
    socket.data = connection;
    const served = [...this.#clients.values()].filter((client) => client.isServed).length;
    this.#clients.set(socket, connection);
    this.#timer ??= setInterval(() => this.#checkTime(), CHECK_INTERVAL_MS);
    if (served >= CLIENTS_MAX) {
      this.#limiter.warn("RPC client refused", { socket: this.path, clients: CLIENTS_MAX });
      connection.refuse(`too many clients: ${CLIENTS_MAX} are served at a time; try again later`);
    } else {
      log.debug("RPC client connected", { socket: this.path });
    }
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

function openSocket(path: string, key: string): ListeningSocket {
  try {
    return ListeningSocket.open(path);
  } catch (error) {
    if (!(error instanceof UbiError)) {
      throw error;
    }
    throw new UbiError(error.code, `cannot start RPC at ${key}: ${error.message}`, {
      cause: error,
    });
  }
}

/** Bun takes an open listening descriptor, and closes it at the end; its types tell it of clients only. */
function listenOn(
  socket: ListeningSocket,
  handler: Bun.SocketHandler<Client>,
): Bun.SocketListener<Client> {
  const options: Bun.FdSocketOptions<Client> = {
    fd: socket.fd,
    allowHalfOpen: true,
    socket: handler,
  };
  const listener = Bun.listen<Client>(options as typeof options & Bun.UnixSocketOptions<Client>);
  assert(
    "fd" in listener && listener.fd === socket.fd,
    "Bun listens at the descriptor it was given",
  );
  socket.giveAwayDescriptor();
  return listener;
}

/** A handler threw, which is a programmer error; Bun would print it and go on. */
function stopProcess(error: Error): void {
  process.nextTick(() => {
    throw error;
  });
}
