/**
 * Drives all queues from one thread: reap what ended, start what fits, publish and kick once for each
 * queue, then sleep until a call. One poll(2) watches the call descriptors and the control socket, so
 * that a backend that goes away is noticed; no wait is longer than the deadline.
 */
import { UbiError } from "../errors.ts";
import { clockNs } from "../ffi/event.ts";
import { PollSet } from "../ffi/socket.ts";
import type { FrontEnd } from "./front-end.ts";
import type { Work } from "./work.ts";

/** The longest sleep, so that time limits and the progress line are served while a backend is slow. */
const SLEEP_MS_MAX = 100;

export interface EngineOptions {
  readonly frontEnd: FrontEnd;
  /** A request that takes longer is taken for lost. */
  readonly timeoutMs: number;
  /** How long to look for ended requests before sleeping. */
  readonly spinUs: number;
}

export class Engine implements Disposable {
  readonly #frontEnd: FrontEnd;
  readonly #timeoutMs: number;
  readonly #spinNs: number;
  readonly #poll: PollSet;

  constructor(options: EngineOptions) {
    this.#frontEnd = options.frontEnd;
    this.#timeoutMs = options.timeoutMs;
    this.#spinNs = options.spinUs * 1000;
    this.#poll = new PollSet(options.frontEnd.queues.length + 1);
    this.#poll.watch(0, options.frontEnd.connection.fd);
    for (const queue of options.frontEnd.queues) {
      this.#poll.watch(queue.index + 1, queue.callFd);
    }
  }

  /**
   * Runs until `work` starts nothing more and nothing is in flight.
   * @throws UbiError E_BENCH when the backend goes away or answers nothing, E_PROTOCOL when it misbehaves
   */
  run(work: Work): void {
    let lastProgressNs = clockNs();
    let idleSinceNs = lastProgressNs;
    for (;;) {
      const nowNs = clockNs();
      const moved = this.#turn(work, nowNs);
      if (moved > 0) {
        lastProgressNs = nowNs;
        idleSinceNs = nowNs;
      }
      if (this.#inFlight() === 0) {
        if (moved === 0) {
          return;
        }
        continue;
      }
      if (nowNs - lastProgressNs > this.#timeoutMs * 1e6) {
        throw this.#failed(`no request ended for ${this.#timeoutMs} ms`);
      }
      if (nowNs - idleSinceNs >= this.#spinNs && !this.#arm() && this.#sleep(work)) {
        lastProgressNs = clockNs();
      }
    }
  }

  [Symbol.dispose](): void {
    this.#poll[Symbol.dispose]();
  }

  // --- internal ---

  #turn(work: Work, nowNs: number): number {
    const queues = this.#frontEnd.queues;
    let moved = 0;
    for (let i = 0; i < queues.length; i++) {
      const queue = queues[i];
      if (queue !== undefined) {
        moved += queue.reap(work, nowNs);
        moved += queue.fill(work, nowNs);
      }
    }
    work.turn(nowNs);
    for (let i = 0; i < queues.length; i++) {
      queues[i]?.publish();
    }
    return moved;
  }

  #inFlight(): number {
    let count = 0;
    for (let i = 0; i < this.#frontEnd.queues.length; i++) {
      count += this.#frontEnd.queues[i]?.inFlight ?? 0;
    }
    return count;
  }

  #arm(): boolean {
    let isReady = false;
    for (let i = 0; i < this.#frontEnd.queues.length; i++) {
      isReady = (this.#frontEnd.queues[i]?.arm() ?? false) || isReady;
    }
    return isReady;
  }

  /** True when another backend took over meanwhile. */
  #sleep(work: Work): boolean {
    if (this.#poll.wait(Math.min(SLEEP_MS_MAX, this.#timeoutMs)) <= 0) {
      return false;
    }
    for (let i = 0; i < this.#frontEnd.queues.length; i++) {
      if (this.#poll.events(i + 1) !== 0) {
        this.#frontEnd.queues[i]?.acceptCall();
      }
    }
    if (this.#poll.events(0) === 0) {
      return false;
    }
    this.#reapLast(work);
    if (!this.#frontEnd.isReconnecting) {
      throw this.#failed("the backend closed the connection");
    }
    this.#frontEnd.reconnect();
    this.#poll.watch(0, this.#frontEnd.connection.fd);
    return true;
  }

  /** What ended before the backend went away did end: a guest would see it too. */
  #reapLast(work: Work): void {
    const nowNs = clockNs();
    for (const queue of this.#frontEnd.queues) {
      queue.reap(work, nowNs);
    }
    work.turn(nowNs);
  }

  #failed(why: string): UbiError {
    return new UbiError("E_BENCH", `${why}, with ${this.#inFlight()} requests in flight`);
  }
}
