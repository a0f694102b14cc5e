/**
 * Tells a service manager that the process is alive, four times in the time that it allows, and only when every
 * thread of the heartbeat has answered the question before: a thread that is stuck lets the time run out.
 */
import type { Heartbeat } from "../device/heartbeat.ts";
import { LogLimiter } from "../log.ts";

/** The time that a manager allows between two signs of life, in milliseconds; undefined without a watchdog. */
export function watchdogMs(
  environment: Readonly<Record<string, string | undefined>>,
  pid: number,
): number | undefined {
  const { WATCHDOG_USEC: limit = "", WATCHDOG_PID: meant } = environment;
  const isForUs = meant === undefined || meant === "" || meant === String(pid);
  if (!isForUs || !/^[1-9][0-9]{0,15}$/.test(limit)) {
    return undefined;
  }
  return Number(limit) / 1000;
}

export class Watchdog implements Disposable {
  readonly #heartbeat: Heartbeat;
  readonly #tell: () => void;
  readonly #limiter = new LogLimiter(2, 60_000);
  readonly #timer: NodeJS.Timeout;
  #question: number;

  constructor(limitMs: number, heartbeat: Heartbeat, tell: () => void) {
    this.#heartbeat = heartbeat;
    this.#tell = tell;
    this.#question = heartbeat.ask();
    this.#timer = setInterval(() => this.#look(), Math.min(limitMs / 4, INTERVAL_MS_MAX));
    this.#timer.unref();
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }

  // --- internal ---

  #look(): void {
    const silent = this.#heartbeat.silent(this.#question);
    if (silent.length > 0) {
      const threads = silent.join(", ");
      this.#limiter.warn("threads do not answer, so the watchdog is told nothing", { threads });
      return;
    }
    this.#tell();
    this.#question = this.#heartbeat.ask();
  }
}

// --- internal ---

/** A limit of days is no reason to look that seldom. */
const INTERVAL_MS_MAX = 60_000;
