/** How much memory a disk takes beside that of its requests: the sizes of what is made when it is opened. */
import type { DeviceConfig } from "../config/index.ts";
import { FlushGroup } from "../disk/flush-group.ts";
import { SlotWaits } from "../disk/slot-waits.ts";
import { IntentRing } from "../stripes/intent-ring.ts";
import { StripeState } from "../stripes/stripe-state.ts";
import { QueueStatistics } from "./queue-statistics.ts";

/** A guest's ring is seldom larger: then no request waits in it behind others that wait for their stripes. */
const LAZY_SLOTS_MIN = 256;
/** Fetch buffers in all, at least 2 stripes. */
const FETCH_BYTES = 32 * 2 ** 20;
const FETCH_BUFFERS_MAX = 64;
/** What a queue can have told the stripe worker at a time. */
export const INTENTS_A_QUEUE = 1024;

/** Requests that a queue takes at once. */
export function queueSlots({ queueSize }: DeviceConfig["tuning"], isLazy: boolean): number {
  return isLazy ? Math.max(queueSize, LAZY_SLOTS_MIN) : queueSize;
}

/** How many stripes can be under way from the source. */
export function fetchBufferCount(stripeBytes: number): number {
  const fitting = Math.floor(FETCH_BYTES / stripeBytes);
  return Math.min(FETCH_BUFFERS_MAX, Math.max(2, fitting));
}

/** Of a disk with stripes to fetch or to track. */
export interface StripeMemory {
  readonly fetchBytes: number;
  /** What is known of each stripe: its flags as in the metadata, and its state. */
  readonly stateBytes: number;
}

export function stripeMemory(options: {
  readonly stripes: number;
  readonly stripeBytes: number;
  readonly queues: number;
}): StripeMemory {
  const { stripes, stripeBytes, queues } = options;
  const buffers = fetchBufferCount(stripeBytes);
  const { bytes, words, doubles } = StripeState.sharedBytes({ stripes, queues, buffers });
  return {
    fetchBytes: buffers * stripeBytes,
    stateBytes:
      stripes + bytes + words + doubles + queues * IntentRing.sharedBytes(INTENTS_A_QUEUE),
  };
}

/** Counters, and what the queues agree on. */
export function sharedMemory(queues: number, slots: number): number {
  const bytesEach = QueueStatistics.sharedBytes(slots) + SlotWaits.sharedBytes(slots);
  return queues * bytesEach + FlushGroup.sharedBytes(queues + 1);
}
