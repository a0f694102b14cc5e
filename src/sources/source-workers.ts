/**
 * The worker threads of a source, as the main thread has them, and the board over which they get their requests.
 *
 *   main: spawn ... stop -> board stopped -> each worker gives up what it has, tells "stopped" -> terminated
 */
import { spawnWorker } from "../ffi/worker.ts";
import { failureLine } from "../ffi/worker-failure.ts";
import { log } from "../log.ts";
import { RequestBoard } from "./request-board.ts";
import type { WorkerSourceDescription } from "./worker-source.ts";

/** What a worker tells the main thread when it has ended; it touches no memory of requests from then on. */
export const SOURCE_WORKER_STOPPED = "stopped";

export interface SourceWorkersOptions {
  /** As in src/worker.ts; what it runs ends when the board is stopped, and then tells `SOURCE_WORKER_STOPPED`. */
  readonly role: string;
  readonly description: WorkerSourceDescription;
  /** What each worker is started with. */
  readonly data: readonly unknown[];
  readonly onFailure: (message: string) => void;
}

/** So long a worker may take to give up what it is doing. */
const STOP_TIMEOUT_MS = 2_000;

export class SourceWorkers {
  /** For the thread that reads: `new WorkerSource(description)`. */
  readonly description: WorkerSourceDescription;
  readonly #board: RequestBoard;
  readonly #role: string;
  readonly #onFailure: (message: string) => void;
  readonly #workers: Worker[] = [];
  readonly #ends: Promise<void>[] = [];
  #isStopping = false;
  #stopped: Promise<boolean> | undefined;

  constructor(options: SourceWorkersOptions) {
    const { description, role, data } = options;
    this.description = description;
    this.#board = new RequestBoard(description.board);
    this.#role = role;
    this.#onFailure = options.onFailure;
    for (const each of data) {
      this.#spawn(each);
    }
  }

  /** The workers cannot reach what they read from, and are asked again. */
  get isTroubled(): boolean {
    return this.#board.isTroubled;
  }

  /** Attempts of the workers that failed and were made again. */
  get retries(): number {
    return this.#board.retries;
  }

  /**
   * Ends the workers; requests under way end, or never do. Idempotent. When it resolves no worker touches the
   * memory of requests any more.
   * @returns false when one did not end in time: it may still write, so that memory has to stay mapped
   */
  stop(): Promise<boolean> {
    this.#stopped ??= this.#stop();
    return this.#stopped;
  }

  // --- internal ---

  #spawn(data: unknown): void {
    const worker = spawnWorker(this.#role, data);
    const ended = Promise.withResolvers<void>();
    worker.addEventListener("message", (event: MessageEvent<unknown>) => {
      if (event.data === SOURCE_WORKER_STOPPED) {
        ended.resolve();
      }
    });
    worker.addEventListener("error", (event) =>
      this.#fail(`failed: ${failureLine(event.message)}`),
    );
    worker.addEventListener("close", () => {
      ended.resolve();
      if (!this.#board.isStopped) {
        this.#fail("ended by itself"); // who reads may have stopped the board, and this thread not know of it yet
      }
    });
    this.#workers.push(worker);
    this.#ends.push(ended.promise);
  }

  #fail(what: string): void {
    if (!this.#isStopping) {
      this.#isStopping = true;
      this.#onFailure(`the ${this.#role} thread ${what}`);
    }
  }

  async #stop(): Promise<boolean> {
    this.#isStopping = true;
    this.#board.stop();
    let timer: NodeJS.Timeout | undefined;
    const limit = new Promise<"late">((resolve) => {
      timer = setTimeout(() => resolve("late"), STOP_TIMEOUT_MS);
    });
    const end = await Promise.race([Promise.all(this.#ends), limit]);
    clearTimeout(timer);
    for (const worker of this.#workers) {
      worker.terminate();
    }
    if (end === "late") {
      log.warn("a thread that reads the stripe source did not end in time", { role: this.#role });
      return false; // it may still signal the board
    }
    RequestBoard.close(this.description.board);
    return true;
  }
}
