/**
 * Metrics over HTTP in the process that they are of, on the main thread: no queue waits for it. Clients are few, each
 * has one request and ten seconds, so whoever scrapes costs at most a few answers of memory.
 */
import { errnoText, UbiError } from "../errors.ts";
import { closeDescriptor } from "../ffi/socket.ts";
import { ListeningSocket, type SocketPlace } from "../ffi/socket-file.ts";
import { listenStream, portOf } from "../ffi/stream.ts";
import type { AnswerRequest } from "../rpc/answer-lines.ts";
import { ClientServer } from "../rpc/client-server.ts";
import { httpAnswer } from "./http-answer.ts";
import { HttpConnection } from "./http-connection.ts";
import { OwnText } from "./own-text.ts";

/** Where to listen, as the config has it: checked. Keys are for messages. */
export interface MetricPlaces {
  /** `device` or `server`. */
  readonly section: string;
  readonly socket: SocketPlace | undefined;
  readonly address: string | undefined;
}

const CLIENTS_MAX = 8;
const BACKLOG = 16;

export class MetricsListener implements Disposable {
  /** The path, the address with its real port, or both. */
  readonly places: readonly string[];
  readonly #opened: DisposableStack;

  /**
   * Listens at all places until it is disposed.
   * @throws UbiError E_SOCKET, E_SOCKET_IN_USE, E_SOCKET_NOT_OURS
   */
  static start(where: MetricPlaces, answer: AnswerRequest): MetricsListener {
    using opened = new DisposableStack();
    const places: string[] = [];
    const { section, socket, address } = where;
    const own = new OwnText(answer, nowMs);
    const serve = (open: OpenPlace) => {
      opened.use(open);
      opened.use(serverAt(open, own));
      open.giveAwayDescriptor();
      places.push(open.path);
    };
    if (socket !== undefined) {
      serve(named(`${section}.metrics_socket`, () => ListeningSocket.open(socket)));
    }
    if (address !== undefined) {
      serve(named(`${section}.metrics_address`, () => listenAt(address)));
    }
    return new MetricsListener(places, opened.move());
  }

  private constructor(places: readonly string[], opened: DisposableStack) {
    this.places = places;
    this.#opened = opened;
  }

  /** Drops the clients, and removes the socket unless another program put its own there. */
  [Symbol.dispose](): void {
    this.#opened[Symbol.dispose]();
  }
}

// --- internal ---

/** As a ListeningSocket is one. */
type OpenPlace = Pick<
  ListeningSocket,
  "path" | "fd" | "giveAwayDescriptor" | typeof Symbol.dispose
>;

const nowMs = () => performance.now();

function serverAt({ fd, path }: OpenPlace, own: OwnText): ClientServer {
  return new ClientServer({
    fd,
    place: path,
    what: "metrics",
    clientsMax: CLIENTS_MAX,
    connect: (socket) =>
      new HttpConnection({
        socket,
        answer: (request) => httpAnswer(request, (format) => own.text(format)),
        nowMs,
      }),
  });
}

/** @throws UbiError that names the key */
function named(key: string, open: () => OpenPlace): OpenPlace {
  try {
    return open();
  } catch (error) {
    if (!(error instanceof UbiError)) {
      throw error;
    }
    const message = `cannot serve metrics at ${key}: ${error.message}`;
    throw new UbiError(error.code, message, { cause: error });
  }
}

const EADDRINUSE = -98;

/** @param address `IP:PORT`, `[IPv6]:PORT` or `localhost:PORT` */
function listenAt(address: string): OpenPlace {
  const colon = address.lastIndexOf(":");
  const name = address.slice(0, colon);
  const host = name === "localhost" ? "127.0.0.1" : name.replace(/^\[(.*)\]$/, "$1");
  const fd = listenStream(host, Number(address.slice(colon + 1)), BACKLOG);
  if (fd < 0) {
    const isTaken = fd === EADDRINUSE;
    const why = isTaken ? "another program listens there; choose another port" : errnoText(fd);
    throw new UbiError(
      isTaken ? "E_SOCKET_IN_USE" : "E_SOCKET",
      `cannot listen at ${address}: ${why}`,
    );
  }
  let isOurs = true;
  return {
    path: `${name}:${portOf(fd)}`,
    fd,
    giveAwayDescriptor: () => {
      isOurs = false;
    },
    [Symbol.dispose]: () => {
      if (isOurs) {
        isOurs = false;
        closeDescriptor(fd);
      }
    },
  };
}
