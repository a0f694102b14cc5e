/** What a run does with the queues: the engine asks it for requests and tells it of their ends. */
import type { DriverQueue } from "./driver-queue.ts";

export interface Work {
  /** Describes one request in a free slot. False: none now, or no more; ask again later. */
  start(queue: DriverQueue, slot: number, nowNs: number): boolean;
  /** A request ended with this status byte. */
  finish(queue: DriverQueue, slot: number, status: number, nowNs: number): void;
  /** Once in each turn, before the requests that were started become visible. */
  turn(nowNs: number): void;
}
