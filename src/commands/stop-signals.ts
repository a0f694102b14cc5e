/**
 * SIGTERM and SIGINT for commands that serve: the first asks for a clean stop, the second ends the process. Others
 * may ask for a clean stop as well, which counts for no signal.
 */
import { log } from "../log.ts";

/** Within this time the same signal is an echo: timeout(1) and others send theirs to process and group. */
const ECHO_MS = 100;

export class StopSignals {
  readonly #first = Promise.withResolvers<void>();
  /** Who asked first. */
  name = "none";
  #signal: string | undefined;
  #signalMs = 0;
  #isOver = false;

  constructor() {
    for (const signal of ["SIGTERM", "SIGINT"] as const) {
      process.on(signal, () => this.#receive(signal));
    }
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

  /** All is done: a signal that comes now ends the process too, but not as one that was broken off. */
  end(): void {
    this.#isOver = true;
  }

  // --- internal ---

  #receive(signal: string): void {
    const nowMs = performance.now();
    if (this.#isOver) {
      process.exit(0);
    }
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
