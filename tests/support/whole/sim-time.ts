/**
 * Time of a simulation, and the machine that its threads run on: what is to happen later is kept here, and of what
 * is due any may be next. A thread that sleeps is woken by descriptors only, as a real one is.
 */
import type { Machine } from "../../../src/device/machine.ts";
import type { EngineFile, IoEngine } from "../../../src/disk/io-engine.ts";
import { createEvent, drainEvent, signalEvent } from "../../../src/ffi/event.ts";
import { closeDescriptor } from "../../../src/ffi/socket.ts";
import type { SeededRandom } from "../random.ts";

interface Later {
  readonly atNs: number;
  readonly run: () => void;
}

/** Looking at a clock takes a moment: a thread that looks for work until a time finds an end. */
const LOOK_NS = 100;

export class SimTime {
  nowNs = 1e9;
  readonly #random: SeededRandom;
  readonly #later: Later[] = [];

  constructor(random: SeededRandom) {
    this.#random = random;
  }

  after(delayNs: number, run: () => void): Later {
    const later = { atNs: this.nowNs + delayNs, run };
    this.#later.push(later);
    return later;
  }

  cancel(later: Later): void {
    const index = this.#later.indexOf(later);
    if (index >= 0) {
      this.#later.splice(index, 1);
    }
  }

  get dueCount(): number {
    return this.#due().length;
  }

  /** One of those that are due happens. */
  runOne(): void {
    const due = this.#due();
    const later = due[this.#random.below(due.length)];
    if (later !== undefined) {
      this.cancel(later);
      later.run();
    }
  }

  pass(ns: number): void {
    this.nowNs += ns;
  }

  /** To the next thing that happens; false when nothing ever will. */
  jump(): boolean {
    const nextNs = this.#later.reduce((least, { atNs }) => Math.min(least, atNs), Infinity);
    this.nowNs = nextNs === Infinity ? this.nowNs : Math.max(this.nowNs, nextNs);
    return nextNs < Infinity;
  }

  #due(): readonly Later[] {
    return this.#later.filter(({ atNs }) => atNs <= this.nowNs);
  }
}

/** One process: when it dies its timers do as well. */
export class SimMachine implements Machine {
  readonly #time: SimTime;
  readonly #open: (requestsMax: number, file: EngineFile) => IoEngine;
  readonly #timers = new Map<number, Later | undefined>();

  constructor(time: SimTime, open: (requestsMax: number, file: EngineFile) => IoEngine) {
    this.#time = time;
    this.#open = open;
  }

  openEngine(requestsMax: number, file: EngineFile): IoEngine {
    return this.#open(requestsMax, file);
  }

  clockNs(): number {
    this.#time.pass(LOOK_NS);
    return this.#time.nowNs;
  }

  threadCpuNs(): number {
    return this.#time.nowNs;
  }

  createTimer(): number {
    const fd = createEvent();
    this.#timers.set(fd, undefined);
    return fd;
  }

  setTimer(fd: number, delayNs: number): void {
    this.#stop(fd);
    drainEvent(fd);
    if (delayNs > 0) {
      const later = this.#time.after(delayNs, () => {
        signalEvent(fd);
      });
      this.#timers.set(fd, later);
    }
  }

  /** No timer expires any more. @param isKilled nobody closed them */
  die(isKilled: boolean): void {
    for (const fd of this.#timers.keys()) {
      this.#stop(fd);
      if (isKilled) {
        closeDescriptor(fd);
      }
    }
    this.#timers.clear();
  }

  #stop(fd: number): void {
    const later = this.#timers.get(fd);
    if (later !== undefined) {
      this.#time.cancel(later);
    }
  }
}
