/** The measured time of a run: warm-up, window, end. CPU time is read exactly at both edges. */
import { threadCpuNs } from "../ffi/event.ts";
import { backendCpuNs } from "./backend-cpu.ts";

export interface Measured {
  readonly elapsedNs: number;
  readonly clientCpuNs: number;
  readonly backendCpuNs: number | undefined;
}

interface Edge {
  readonly nowNs: number;
  readonly clientNs: number;
  readonly backendNs: number | undefined;
}

export class MeasuringWindow {
  readonly #openNs: number;
  readonly #closeNs: number;
  readonly #pid: number | undefined;
  #first: Edge | undefined;
  #last: Edge | undefined;
  /** Requests that end now count. */
  isOpen = false;
  /** No more requests are started. */
  isOver = false;

  constructor(options: {
    readonly startNs: number;
    readonly warmupNs: number;
    readonly durationNs: number;
    readonly pid: number | undefined;
  }) {
    this.#openNs = options.startNs + options.warmupNs;
    this.#closeNs = this.#openNs + options.durationNs;
    this.#pid = options.pid;
  }

  /** Moves with the clock. */
  turn(nowNs: number): void {
    if (!this.isOpen && !this.isOver && nowNs >= this.#openNs) {
      this.isOpen = true;
      this.#first = this.#edge(nowNs);
    } else if (this.isOpen && nowNs >= this.#closeNs) {
      this.close(nowNs);
    }
  }

  /** Ends the window early, or at its time. */
  close(nowNs: number): void {
    if (!this.isOver) {
      this.isOver = true;
      this.isOpen = false;
      this.#first ??= this.#edge(nowNs);
      this.#last = this.#edge(nowNs);
    }
  }

  /** How much of the window has passed, 0 to 1. */
  progress(nowNs: number): number {
    const first = this.#first?.nowNs ?? nowNs;
    const whole = this.#closeNs - this.#openNs;
    return this.isOver || whole <= 0 ? 1 : Math.min(1, (nowNs - first) / whole);
  }

  /** After `close`. */
  get measured(): Measured {
    const { first, last } = { first: this.#first, last: this.#last };
    if (first === undefined || last === undefined) {
      return { elapsedNs: 0, clientCpuNs: 0, backendCpuNs: undefined };
    }
    return {
      elapsedNs: last.nowNs - first.nowNs,
      clientCpuNs: last.clientNs - first.clientNs,
      backendCpuNs:
        first.backendNs === undefined || last.backendNs === undefined
          ? undefined
          : last.backendNs - first.backendNs,
    };
  }

  #edge(nowNs: number): Edge {
    return {
      nowNs,
      clientNs: threadCpuNs(),
      backendNs: this.#pid === undefined ? undefined : backendCpuNs(this.#pid),
    };
  }
}
