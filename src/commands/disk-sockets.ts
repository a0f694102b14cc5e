/** The sockets of a served disk beside the one for front ends: RPC, and metrics. */
import type { HandedSocket, SocketPlace } from "../ffi/socket-file.ts";
import type { MetricPlaces, MetricsListener } from "../metrics/listener.ts";
import type { AnswerRequest, RpcServer } from "../rpc/index.ts";
import { startMetrics } from "./metrics-listener.ts";
import { startRpc } from "./rpc-socket.ts";

export class DiskSockets implements Disposable {
  readonly #opened = new DisposableStack();
  #rpc: RpcServer | undefined;
  #metrics: MetricsListener | undefined;

  /** @throws UbiError E_SOCKET, E_SOCKET_IN_USE, E_SOCKET_NOT_OURS */
  async open(
    places: {
      readonly rpc: SocketPlace | undefined;
      readonly metrics: MetricPlaces | undefined;
    },
    answer: AnswerRequest,
  ): Promise<void> {
    this.#rpc = this.#opened.use(startRpc("device", places.rpc, answer));
    this.#metrics = this.#opened.use(await startMetrics(places.metrics, answer));
  }

  /** For the log. */
  get facts(): Readonly<Record<string, string>> {
    const [rpc, metrics] = [this.#rpc, this.#metrics];
    return {
      ...(rpc === undefined ? {} : { rpc: rpc.path }),
      ...(metrics === undefined ? {} : { metrics: metrics.places.join(",") }),
    };
  }

  /** For another process, by key of the config. */
  get handed(): Readonly<Record<string, HandedSocket>> {
    const rpc = this.#rpc?.handed;
    return {
      ...(rpc === undefined ? {} : { rpc_socket: rpc }),
      ...Object.fromEntries(this.#metrics?.handed ?? []),
    };
  }

  /** Another process serves them from here on. */
  leave(): void {
    this.#rpc?.leave();
    this.#metrics?.leave();
  }

  [Symbol.dispose](): void {
    this.#opened[Symbol.dispose]();
  }
}
