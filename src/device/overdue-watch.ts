/**
 * Tells the log of requests that take too long, once when that is seen and once when they end after all, and of threads
 * that do not answer. The main thread looks a few times within the time that is too long, at most every 5 seconds; in
 * between nothing runs, and a queue hears of it by one wake-up.
 */
import { clockNs } from "../ffi/event.ts";
import { LogLimiter, log } from "../log.ts";
import type { Heartbeat } from "./heartbeat.ts";
import type { OverdueRequest, OverdueRequests, WaitsFor } from "./overdue-requests.ts";

const LOOKS_A_THRESHOLD = 6;
const LOOK_MS_MAX = 5_000;
/** A disk that hangs has many requests, which tell the same: RPC has all of them. */
const LINES_MAX = 8;
const WINDOW_MS = 60_000;

export class OverdueWatch implements Disposable {
  readonly #overdue: OverdueRequests;
  readonly #heartbeat: Pick<Heartbeat, "ask" | "silent">;
  readonly #nowNs: () => number;
  readonly #begun = new LogLimiter(LINES_MAX, WINDOW_MS);
  readonly #ended = new LogLimiter(LINES_MAX, WINDOW_MS);
  readonly #timer: NodeJS.Timeout | undefined;
  /** Requests that were overdue at the last look. */
  #known = new Map<string, OverdueRequest>();
  #question: number | undefined;
  #mayEnd = false;

  constructor(
    overdue: OverdueRequests,
    heartbeat: Pick<Heartbeat, "ask" | "silent">,
    nowNs = clockNs,
  ) {
    this.#overdue = overdue;
    this.#heartbeat = heartbeat;
    this.#nowNs = nowNs;
    if (Number.isFinite(overdue.thresholdNs)) {
      const lookMs = overdue.thresholdNs / 1e6 / LOOKS_A_THRESHOLD;
      this.#timer = setInterval(() => this.look(), Math.min(lookMs, LOOK_MS_MAX));
      this.#timer.unref();
    }
  }

  /** As the timer does. */
  look(): void {
    this.#lookAtRequests();
    if (!this.#mayEnd) {
      this.#lookAtThreads();
    }
  }

  /** From here on a thread that does not answer may have ended. Requests are looked at to the end. */
  expectEnds(): void {
    this.#mayEnd = true;
    this.#overdue.silentThreads = [];
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }

  // --- internal ---

  #lookAtRequests(): void {
    const nowNs = this.#nowNs();
    const found = this.#overdue.find(nowNs);
    const before = this.#known;
    this.#known = new Map(found.map((request) => [nameOf(request), request]));
    for (const [name, request] of this.#known) {
      if (!before.has(name)) {
        this.#begun.warn("a request takes too long", {
          ...fieldsOf(request, nowNs),
          waitsFor: waitText(request.waitsFor),
        });
      }
    }
    for (const [name, request] of before) {
      if (!this.#known.has(name)) {
        this.#ended.info("a request that took too long has ended", fieldsOf(request, nowNs));
      }
    }
  }

  /** Who has not answered within the time between two looks is stuck: all that is asked of it is one turn. */
  #lookAtThreads(): void {
    const before = this.#overdue.silentThreads;
    const silent = this.#question === undefined ? [] : this.#heartbeat.silent(this.#question);
    this.#overdue.silentThreads = silent;
    const gone = silent.filter((name) => !before.includes(name));
    const back = before.filter((name) => !silent.includes(name));
    if (gone.length > 0) {
      log.warn("threads do not answer", { threads: gone.join(", ") });
    }
    if (back.length > 0) {
      log.info("threads answer again", { threads: back.join(", ") });
    }
    this.#question = this.#heartbeat.ask();
  }
}

// --- internal ---

/** The same for as long as a request is in flight, and another one for the next that has its slot. */
function nameOf({ queue, slot, startedNs }: OverdueRequest): string {
  return `${queue} ${slot} ${startedNs}`;
}

function fieldsOf(request: OverdueRequest, nowNs: number) {
  const { queue, operation, sector, sectorCount: sectors, startedNs } = request;
  const seconds = Math.round((nowNs - startedNs) / 1e8) / 10;
  return operation === "flush"
    ? { queue, operation, seconds }
    : { queue, operation, sector, sectors, seconds };
}

function waitText(waitsFor: WaitsFor): string {
  if (waitsFor.kind !== "stripe") {
    return waitsFor.kind;
  }
  const { stripe, step, failedTries } = waitsFor;
  const tries = failedTries === 0 ? "" : `, ${failedTries} tries failed`;
  return `stripe ${stripe}: ${step}${tries}`;
}
