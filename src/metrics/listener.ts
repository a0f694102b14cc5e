/**
 * Metrics over HTTP in the process that they are of, on the main thread: no queue waits for it. Clients are few, each
 * has one request and ten seconds, so whoever scrapes costs at most a few answers of memory.
 */
import { UbiError } from "../errors.ts";
import { hostOf, listenAt } from "../ffi/listen-address.ts";
import { closeDescriptor } from "../ffi/socket.ts";
import { type HandedSocket, ListeningSocket, type SocketPlace } from "../ffi/socket-file.ts";
import { portOf } from "../ffi/stream.ts";
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
  /** What listens at the address already; undefined where nothing does. */
  readonly addressFd?: number | undefined;
}

/** The keys of places. */
type PlaceName = "metrics_socket" | "metrics_address";

const CLIENTS_MAX = 8;

export class MetricsListener implements Disposable {
  /** The path, the address with its real port, or both. */
  readonly places: readonly string[];
  readonly #opened: DisposableStack;
  readonly #served: readonly ServedPlace[];

  /**
   * Listens at all places until it is disposed.
   * @throws UbiError E_SOCKET, E_SOCKET_IN_USE, E_SOCKET_NOT_OURS
   */
  static start(where: MetricPlaces, answer: AnswerRequest): MetricsListener {
    using opened = new DisposableStack();
    const served: ServedPlace[] = [];
    const { section, socket, address, addressFd } = where;
    const own = new OwnText(answer, nowMs);
    const serve = (name: PlaceName, open: OpenPlace) => {
      opened.use(open);
      const server = opened.use(serverAt(open, own));
      open.giveAwayDescriptor();
      served.push({ name, open, server });
    };
    if (socket !== undefined) {
      const open = () => ListeningSocket.open(socket);
      serve("metrics_socket", named(`${section}.metrics_socket`, open));
    }
    if (address !== undefined) {
      const open = () => placeAt(address, addressFd ?? listenAt(address));
      serve("metrics_address", named(`${section}.metrics_address`, open));
    }
    return new MetricsListener(served, opened.move());
  }

  private constructor(served: readonly ServedPlace[], opened: DisposableStack) {
    this.places = served.map(({ open }) => open.path);
    this.#served = served;
    this.#opened = opened;
  }

  /** For another process, to serve in place of this one. */
  get handed(): ReadonlyMap<PlaceName, HandedSocket> {
    return new Map(this.#served.map(({ name, open }) => [name, open.handed]));
  }

  /** Another process serves the sockets from here on; clients that are here are answered. */
  leave(): void {
    for (const { open, server } of this.#served) {
      open.leaveFile();
      server.stopListening();
    }
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
  "path" | "fd" | "handed" | "leaveFile" | "giveAwayDescriptor" | typeof Symbol.dispose
>;

interface ServedPlace {
  readonly name: PlaceName;
  readonly open: OpenPlace;
  readonly server: ClientServer;
}

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

function placeAt(address: string, fd: number): OpenPlace {
  let isOurs = true;
  const path = `${hostOf(address)}:${portOf(fd)}`;
  return {
    path,
    fd,
    handed: { fd, path, isFileOurs: false },
    leaveFile: () => {},
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
