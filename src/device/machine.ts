/** What the threads of a disk take from the machine: I/O engines and time. Simulations have one of their own. */
import type { EngineFile, IoEngine } from "../disk/io-engine.ts";
import { openEngine } from "../disk/open-engine.ts";
import { clockNs, createTimer, setTimer, threadCpuNs } from "../ffi/event.ts";

export interface Machine {
  /** @param requestsMax requests in flight at once */
  openEngine(requestsMax: number, file: EngineFile): IoEngine;
  /** Nanoseconds since some moment. */
  clockNs(): number;
  /** CPU time of the calling thread, nanoseconds. */
  threadCpuNs(): number;
  /** A descriptor that is waited for, and drained, like an eventfd; whoever made it closes it. */
  createTimer(): number;
  /** Lets the timer expire once, `delayNs` from now; 0 stops it. */
  setTimer(fd: number, delayNs: number): void;
}

/** @param ioEngine as configured */
export function thisMachine(ioEngine: "io_uring" | "sync"): Machine {
  return {
    openEngine: (requestsMax, file) => openEngine(ioEngine, requestsMax, file),
    clockNs,
    threadCpuNs,
    createTimer,
    setTimer,
  };
}
