/**
 * The worker threads of one run: started together, ended together. The first failure, or the signal, ends the work
 * of all at once; whoever does not end soon is ended.
 */
import { type ErrorCode, UbiError } from "../errors.ts";
import { spawnWorker } from "../ffi/worker.ts";

/** From a worker. `note` is the role's own. */
export type GroupMessage<Note> =
  | { readonly kind: "listening" }
  | { readonly kind: "note"; readonly note: Note }
  | { readonly kind: "ended" }
  | { readonly kind: "failed"; readonly code: ErrorCode; readonly message: string };

export interface GroupOptions<Data, Note> {
  readonly role: string;
  /** One worker each. */
  readonly data: readonly Data[];
  readonly signal: AbortSignal;
  /** Called once, when the work must end early. The workers get the message "stop" as well. */
  readonly onStop: () => void;
  /** What it throws is a failure like that of a worker. */
  readonly onNote?: (note: Note) => void;
  /** What the main thread does for them meanwhile; its failure is one like theirs. */
  readonly mainPart?: () => Promise<void>;
  /** Left out: a thread of this program. */
  readonly spawn?: (role: string, data: Data) => Worker;
}

/**
 * Runs the workers to their end.
 * @throws UbiError the first failure, or the reason of the signal
 */
export async function runWorkers<Data, Note>(options: GroupOptions<Data, Note>): Promise<void> {
  const { signal } = options;
  signal.throwIfAborted();
  const group = new Group(options);
  const abort = () => group.fail(signal.reason);
  signal.addEventListener("abort", abort);
  try {
    await group.ended();
  } finally {
    signal.removeEventListener("abort", abort);
    group.terminate();
  }
}

// --- internal ---

/** Requests in flight are cancelled; what a thread computes ends with its stripe. */
const STOP_TIMEOUT_MS = 5_000;

class Group<Data, Note> {
  readonly #options: GroupOptions<Data, Note>;
  readonly #workers: readonly Worker[];
  readonly #ends: Promise<void>[];
  readonly #failed = Promise.withResolvers<never>();
  #error: unknown;
  #hasFailed = false;

  constructor(options: GroupOptions<Data, Note>) {
    this.#options = options;
    this.#failed.promise.catch(() => {});
    const { spawn = spawnWorker, role } = options;
    this.#workers = options.data.map((data) => spawn(role, data));
    this.#ends = this.#workers.map((worker) => this.#watch(worker));
    if (options.mainPart !== undefined) {
      this.#ends.push(options.mainPart().catch((error: unknown) => this.fail(error)));
    }
  }

  async ended(): Promise<void> {
    const all = Promise.all(this.#ends);
    await Promise.race([all, this.#failed.promise]).catch(() => {});
    if (this.#hasFailed) {
      await Promise.race([all, Bun.sleep(STOP_TIMEOUT_MS)]);
      throw this.#error;
    }
  }

  /** The first one counts: the others follow from it. */
  fail(error: unknown): void {
    if (this.#hasFailed) {
      return;
    }
    this.#hasFailed = true;
    this.#error = error;
    this.#options.onStop();
    for (const worker of this.#workers) {
      worker.postMessage("stop");
    }
    this.#failed.reject(error);
  }

  terminate(): void {
    for (const worker of this.#workers) {
      worker.terminate();
    }
  }

  // --- internal ---

  #watch(worker: Worker): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const die = (why: string) => {
      this.fail(new UbiError("E_WORKER", `a ${this.#options.role} thread ${why}`));
      resolve();
    };
    worker.addEventListener("error", (event) => die(`failed: ${event.message}`));
    worker.addEventListener("message", ({ data }: MessageEvent<GroupMessage<Note>>) => {
      switch (data.kind) {
        case "listening":
          if (this.#hasFailed) {
            worker.postMessage("stop"); // the first one came while it could not hear
          }
          return;
        case "note":
          this.#hear(data.note);
          return;
        case "failed":
          this.fail(new UbiError(data.code, data.message));
          resolve();
          return;
        case "ended":
          resolve();
      }
    });
    worker.addEventListener("close", () => die("ended by itself"));
    return promise;
  }

  #hear(note: Note): void {
    try {
      this.#options.onNote?.(note);
    } catch (error) {
      this.fail(error);
    }
  }
}
