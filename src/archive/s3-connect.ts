/**
 * Finds out within a time of its own whether a host can be reached: Bun's fetch has no limit for the connect alone,
 * and a host that swallows packets would cost the time of a whole attempt. Used before the first request and after
 * a pause, when fetch has no connection left; the connection made here is closed at once.
 */
import { connect } from "node:net";
import { abortableWait, startTimer } from "./abortable-wait.ts";
import { BrokenExchange } from "./s3-exchange.ts";

export class ReachableHost {
  readonly #host: string;
  readonly #port: number;
  readonly #timeoutMs: number;
  readonly #isBehindProxy: boolean;
  #lastAnswerMs = Number.NEGATIVE_INFINITY;

  constructor(url: string, timeoutMs: number) {
    const { hostname, port, protocol } = new URL(url);
    const isTls = protocol === "https:";
    // fetch knows by itself that names below localhost are this machine; the resolver need not.
    this.#host = hostname.endsWith(".localhost") ? "localhost" : hostname.replace(/^\[|\]$/g, "");
    this.#port = port === "" ? (isTls ? 443 : 80) : Number(port);
    this.#timeoutMs = timeoutMs;
    this.#isBehindProxy = isTls && Boolean(process.env.HTTPS_PROXY ?? process.env.https_proxy);
  }

  /** The host answered: it can be reached for the time being. */
  answered(): void {
    this.#lastAnswerMs = performance.now();
  }

  /** @throws BrokenExchange; the signal's reason */
  async check(signal: AbortSignal | undefined): Promise<void> {
    if (this.#isBehindProxy || performance.now() - this.#lastAnswerMs < TRUSTED_MS) {
      return;
    }
    const socket = connect({ host: this.#host, port: this.#port });
    try {
      await abortableWait(signal, (done, fail) => {
        const stopTimer = startTimer(this.#timeoutMs, () => {
          fail(new BrokenExchange(`no connection within ${this.#timeoutMs} ms`, true));
        });
        socket.once("connect", done);
        socket.once("error", (error) => {
          fail(new BrokenExchange(`no connection: ${error.message}`, true, error));
        });
        return stopTimer;
      });
    } finally {
      socket.destroy();
    }
  }
}

// --- internal ---

/** Shorter than services and fetch keep an idle connection. */
const TRUSTED_MS = 4000;
