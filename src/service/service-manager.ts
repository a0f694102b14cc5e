/**
 * What a service manager hears of a program that serves (sd_notify(3)): that it is ready, what it does, that it stops,
 * and that it is alive.
 */
import type { Heartbeat } from "../device/heartbeat.ts";
import { errnoText } from "../errors.ts";
import { tellSocket } from "../ffi/socket.ts";
import { LogLimiter } from "../log.ts";
import { Watchdog, watchdogMs } from "./watchdog.ts";

export class ServiceManager {
  readonly #path: string;
  readonly #watchdogMs: number | undefined;
  readonly #limiter = new LogLimiter(3, 600_000);
  #watchdog: Watchdog | undefined;

  /**
   * Takes its variables out of the environment: they are meant for this process alone.
   * @param path of `NOTIFY_SOCKET`
   */
  constructor(path: string) {
    this.#path = path;
    this.#watchdogMs = watchdogMs(process.env, process.pid);
    for (const name of ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"]) {
      delete process.env[name];
    }
  }

  /** What `systemctl status` shows. */
  tell(status: string): void {
    this.#send(`STATUS=${status}`, 0);
  }

  /** The start takes longer, for a reason that is not this program's: the time for it begins anew. */
  waiting(status: string): void {
    this.#send(`EXTEND_TIMEOUT_USEC=${EXTENSION_MS * 1000}\nSTATUS=${status}`, 0);
  }

  /** From here on it is a failure when a thread of `heartbeat` does not answer in time. */
  ready(status: string, heartbeat: Heartbeat): void {
    this.#send(`READY=1\nSTATUS=${status}`, PATIENCE_MS);
    if (this.#watchdogMs !== undefined) {
      this.#send("WATCHDOG=1", 0);
      this.#watchdog = new Watchdog(this.#watchdogMs, heartbeat, () => this.#send("WATCHDOG=1", 0));
    }
  }

  /** For a process that is to serve in place of this one; the time is meant for whoever is the main process. */
  get environment(): Readonly<Record<string, string>> {
    const limit = this.#watchdogMs;
    return {
      NOTIFY_SOCKET: this.#path,
      ...(limit === undefined ? {} : { WATCHDOG_USEC: String(Math.round(limit * 1000)) }),
    };
  }

  /** The main process is another one from here on, and this one is not heard any more. */
  handOver(pid: number): void {
    this.#watchdog?.[Symbol.dispose]();
    this.#send(`MAINPID=${pid}`, PATIENCE_MS);
  }

  /** The manager waits for the end from here on, with a limit of its own. Before a thread is asked to end. */
  stopping(status: string): void {
    this.#watchdog?.[Symbol.dispose]();
    this.#send(`STOPPING=1\nSTATUS=${status}`, PATIENCE_MS);
  }

  // --- internal ---

  #send(text: string, waitMs: number): void {
    const result = tellSocket(this.#path, text, waitMs);
    // What there is no room for comes again, or does not matter.
    if (result < 0 && (result !== EAGAIN || waitMs > 0)) {
      this.#limiter.warn("cannot tell the service manager", { cause: errnoText(result) });
    }
  }
}

// --- internal ---

/** For words that are said once. */
const PATIENCE_MS = 1_000;
/** Longer than what `waiting` is told in. */
const EXTENSION_MS = 60_000;
const EAGAIN = -11;
