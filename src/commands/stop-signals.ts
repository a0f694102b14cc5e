/** SIGTERM and SIGINT for commands that serve: the first asks for a clean stop, the second ends the process. */
import { log } from "../log.ts";

/** Within this time the same signal is an echo: timeout(1) and others send theirs to process and group. */
const ECHO_MS = 100;

export class StopSignals {
  readonly #first = Promise.withResolvers<void>();
  readonly #listener = (name: string) => this.#receive(name);
  name = "none";
  #firstMs = 0;

  constructor() {
    process.on("SIGTERM", this.#listener);
    process.on("SIGINT", this.#listener);
  }

  get first(): Promise<void> {
    return this.#first.promise;
  }

  end(): void {
    process.off("SIGTERM", this.#listener);
    process.off("SIGINT", this.#listener);
  }

  // --- internal ---

  #receive(name: string): void {
    const nowMs = performance.now();
    if (this.name === name && nowMs - this.#firstMs < ECHO_MS) {
      return;
    }
    if (this.name !== "none") {
      log.error("stopped at once by a second signal", { signal: name });
      process.exit(1);
    }
    this.name = name;
    this.#firstMs = nowMs;
    this.#first.resolve();
  }
}
