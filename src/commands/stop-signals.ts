/**
 * SIGTERM and SIGINT for commands that serve: the first asks for a clean stop, the second ends the process. Others may
 * ask for a clean stop as well, which counts for no signal.
 */
import { log } from "../log.ts";

/** Within this time the same signal is an echo: timeout(1) and others send theirs to process and group. */
const ECHO_MS = 100;

export class StopSignals {
  readonly #first = Promise.withResolvers<void>();
  readonly #listener = (signal: string) => this.#receive(signal);
  /** Who asked first. */
  name = "none";
  #signal: string | undefined;
  #signalMs = 0;

  constructor() {
    process.on("SIGTERM", this.#listener);
    process.on("SIGINT", this.#listener);
  }

  get first(): Promise<void> {
    return this.#first.promise;
  }

  /** Asks for a clean stop, however often. */
  ask(by: string): void {
    if (this.name === "none") {
      this.name = by;
      this.#first.resolve();
    }
  }

  end(): void {
    process.off("SIGTERM", this.#listener);
    process.off("SIGINT", this.#listener);
  }

  // --- internal ---

  #receive(signal: string): void {
    const nowMs = performance.now();
    if (this.#signal === signal && nowMs - this.#signalMs < ECHO_MS) {
      return;
    }
    if (this.#signal !== undefined) {
      log.error("stopped at once by a second signal", { signal });
      process.exit(1);
    }
    this.#signal = signal;
    this.#signalMs = nowMs;
    this.ask(signal);
  }
}
