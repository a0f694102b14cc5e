/** The stripe worker as the main thread sees it: hears what it tells, looks at its progress, stops it. */
import { UbiError } from "../errors.ts";
import { log } from "../log.ts";
import type { DiskStripes } from "./disk-stripes.ts";
import type { StripeMessage } from "./stripe-worker.ts";

const PROGRESS_MS = 1_000;
/** Writes of a few stripes, a flush and a few sectors, with their retries. */
const STOP_TIMEOUT_MS = 30_000;
/** At a stop guests wait so long for a source that does not answer; then they get errors. */
const SOURCE_PATIENCE_MS = 5_000;

export class StripeThread {
  readonly #stripes: DiskStripes;
  readonly #stopped = Promise.withResolvers<void>();
  #timer: NodeJS.Timeout | undefined;
  #patience: NodeJS.Timeout | undefined;

  /** @param worker watched by the caller for its failure */
  constructor(worker: Worker, stripes: DiskStripes, ready: () => void) {
    this.#stripes = stripes;
    if (stripes.isFetching) {
      this.#timer = setInterval(() => stripes.noteProgress(), PROGRESS_MS);
    }
    worker.addEventListener("message", (event: MessageEvent<StripeMessage>) => {
      switch (event.data.kind) {
        case "ready":
          ready();
          return;
        case "source-closed":
          this.#endProgress();
          void stripes.closeSource();
          return;
        case "held":
          stripes.isHeld(event.data.ticket);
          return;
        case "stopped":
          this.#stopped.resolve();
          return;
        case "growth":
          stripes.growthEnded(event.data.sectors, event.data.failure);
      }
    });
  }

  /** A stop begins: requests that wait for a source that does not answer in time get an error. Before `stop`. */
  limitPatience(): void {
    this.#patience ??= setTimeout(() => this.#giveUp(), SOURCE_PATIENCE_MS);
  }

  /**
   * Fetches no more, makes durable what was fetched.
   * @throws UbiError E_DISK_IO when the disk does not end that
   */
  async stop(): Promise<void> {
    clearTimeout(this.#patience);
    this.#endProgress();
    this.#stripes.askToStop();
    const timer = setTimeout(() => {
      const message = "the disk or its metadata did not end the writes of stripes at the stop";
      this.#stopped.reject(new UbiError("E_DISK_IO", message));
    }, STOP_TIMEOUT_MS);
    try {
      await this.#stopped.promise;
    } finally {
      clearTimeout(timer);
    }
  }

  // --- internal ---

  #giveUp(): void {
    if (this.#stripes.isFetching) {
      log.warn(
        "requests that wait for the stripe source fail: it does not answer, and this is a stop",
      );
      this.#stripes.askToGiveUp();
    }
  }

  #endProgress(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }
}
