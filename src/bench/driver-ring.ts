/**
 * What a queue of the driver asks of its ring, of either kind. A slot's chain is written link by link when it
 * changes, offered as often as it is to run, and shown with all others of its batch.
 */
import { UbiError } from "../errors.ts";
import type { GuestMemory, QueueLayout, QueueShape } from "./guest-memory.ts";

export interface DriverRing {
  /** What SET_VRING_BASE says of a fresh one. */
  readonly base: number;
  /** What SET_VRING_BASE says after the device was lost, by all that is known here: where it answered last. */
  lostBase(): number;
  /** One descriptor of a slot's chain; `address` is the guest's. */
  writeLink(slot: number, link: number, address: number, lengthBytes: number, kind: LinkKind): void;
  /** The slot's chain has so many links, and is complete. */
  endChain(slot: number, count: number): void;
  /** Puts a slot's chain behind the others; the device sees it after `show`. */
  offer(slot: number): void;
  /** Shows what was offered. True when the device waits for a kick. */
  show(): boolean;
  /**
   * The slot of the next used chain, or -1 when there is none.
   * @param inFlight chains that the device has
   * @throws UbiError E_PROTOCOL when that cannot be
   */
  nextUsed(inFlight: number): number;
  /** Asks for a call at the next used chain. True when there is one already. */
  arm(): boolean;
}

/** Flags of a link. */
export interface LinkKind {
  readonly isWritable: boolean;
  readonly isLast: boolean;
}

export interface DriverRingOptions {
  readonly index: number;
  readonly shape: QueueShape;
  readonly layout: QueueLayout;
  readonly memory: GuestMemory;
  /** Where this queue's part of the memory begins. */
  readonly base: number;
  readonly usesEventIndex: boolean;
}

export function brokenRing(index: number, what: string): UbiError {
  return new UbiError("E_PROTOCOL", `queue ${index} of the backend is broken: ${what}`);
}
