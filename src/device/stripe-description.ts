/** What the threads of a disk with lazy stripes are started with: plain data, shared memory, descriptors. */
import type { SharedStripeState } from "../stripes/stripe-state.ts";

export interface StripeDescription {
  readonly state: SharedStripeState;
  /** A power of two. */
  readonly stripeSectors: number;
  readonly isWrittenTracked: boolean;
  /** Then a first write since the last archive is one, and noted as such. */
  readonly isChangeTracked: boolean;
  /** False: reads of unfetched stripes are answered from the source and fetch nothing. */
  readonly isCopyOnRead: boolean;
  /** One a queue: what the queue has to tell the stripe worker (`IntentRing`). */
  readonly rings: readonly SharedArrayBuffer[];
  /** eventfd of the stripe worker. */
  readonly stripeWakeFd: number;
  /** A source that queues may read themselves. */
  readonly image: ImageDescription | undefined;
}

/** A raw image, open for reading. The main thread closes it when no stripe is left to fetch. */
export interface ImageDescription {
  readonly fd: number;
  readonly sizeBytes: number;
  /** Offsets and lengths of reads are multiples of it. */
  readonly blockBytes: number;
  readonly memoryAlignBytes: number;
}
