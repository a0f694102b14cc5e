/** What a fuzzing guest does with its ring, of either kind: chains into it, used ones out of it, and who is told when. */
import type { HostileHalf } from "./fuzz-hostile.ts";

export interface Descriptor {
  readonly address: number;
  readonly length: number;
  /** NEXT is added where the chain goes on. */
  readonly flags: number;
}

export interface UsedChain {
  readonly id: number;
  readonly length: number;
}

export interface FuzzRing {
  readonly isPacked: boolean;
  /** For SET_VRING_NUM and SET_VRING_BASE. */
  readonly entries: number;
  readonly base: number;
  /** What GET_VRING_BASE must answer when all chains are used. */
  readonly endBase: number;
  /** Chains that were put in and are not used yet. */
  readonly pending: number;
  /** Where hostile descriptors begin that another thread may change; `entries` when it may not. */
  readonly mutableFrom: number;
  /** All chains are used: descriptors may be used anew. */
  beginBatch(): void;
  hasRoom(descriptors: number): boolean;
  /** Puts a chain in, or a descriptor for its table at the offset. Returns the id that it is used by. */
  put(chain: readonly Descriptor[], tableOffset: number | undefined): number;
  /** Puts a hostile chain in, maybe several times. Returns its ids; none where there is no room. */
  putHostile(half: HostileHalf): readonly number[];
  /** Shows what was put in. True when the device asks for a kick. */
  show(): boolean;
  /** Asks for a call at the next used chain. */
  arm(): void;
  hasUsed(): boolean;
  /** The next used chain. `hasUsed` must hold. */
  takeUsed(): UsedChain;
  /** Makes it a ring that no driver leaves behind: it must be found broken. */
  spoil(): void;
  /** Fills it with noise, some of which may look like chains. */
  scramble(): void;
}

export interface RingShape {
  readonly isPacked: boolean;
  readonly hasEventIndex: boolean;
  /** The driver asks for no calls and looks by itself. */
  readonly isPolling: boolean;
  /** It kicks only when the device asked for it. */
  readonly isKickingAsAsked: boolean;
}

/** One descriptor at an offset of the guest's file: its last word is flags and next, or id and flags. */
export function writeDescriptor(
  words: Uint32Array,
  offset: number,
  { address, length }: Descriptor,
  last: number,
): void {
  const at = offset / 4;
  words[at] = address % 2 ** 32;
  words[at + 1] = Math.floor(address / 2 ** 32);
  words[at + 2] = length;
  words[at + 3] = last;
}
