/**
 * The RPC socket on the main thread. The socket is made by the native library, which gives its file the
 * right mode before anybody can connect (Bun would go by the process's umask).
 */
import { UbiError } from "../errors.ts";
import { type HandedSocket, ListeningSocket, type SocketPlace } from "../ffi/socket-file.ts";
import { type AnswerRequest, answerLine } from "./answer-lines.ts";
import { ClientServer } from "./client-server.ts";
import { RpcConnection } from "./connection.ts";

const CLIENTS_MAX = 16;

export class RpcServer implements Disposable {
  readonly path: string;
  readonly #socket: ListeningSocket;
  readonly #server: ClientServer;

  /**
   * Serves at `place` until it is disposed.
   * @param key of the document that names it, for messages
   * @throws UbiError E_SOCKET, E_SOCKET_IN_USE, E_SOCKET_NOT_OURS
   */
  static start(place: SocketPlace, key: string, answer: AnswerRequest): RpcServer {
    return new RpcServer(openSocket(place, key), answer);
  }

  private constructor(socket: ListeningSocket, answer: AnswerRequest) {
    this.path = socket.path;
    this.#socket = socket;
    this.#server = new ClientServer({
      fd: socket.fd,
      place: socket.path,
      what: "RPC",
      clientsMax: CLIENTS_MAX,
      connect: (client) =>
        new RpcConnection({
          socket: client,
          answer: (line) => answerLine(answer, line),
          nowMs: () => performance.now(),
          defer: (task) => setImmediate(task),
        }),
    });
    socket.giveAwayDescriptor();
  }

  /** For another process, to serve in place of this one. */
  get handed(): HandedSocket {
    return this.#socket.handed;
  }

  /** Another process serves the socket from here on; clients that are here are answered. */
  leave(): void {
    this.#socket.leaveFile();
    this.#server.stopListening();
  }

  /** Drops the clients and removes the socket, unless another program put its own there. */
  [Symbol.dispose](): void {
    this.#server[Symbol.dispose]();
    this.#socket[Symbol.dispose]();
  }
}

// --- internal ---

function openSocket(place: SocketPlace, key: string): ListeningSocket {
  try {
    return ListeningSocket.open(place);
  } catch (error) {
    if (!(error instanceof UbiError)) {
      throw error;
    }
    throw new UbiError(error.code, `cannot start RPC at ${key}: ${error.message}`, {
      cause: error,
    });
  }
}
