/**
 * A thread that goes on changing the hostile half of a fuzzing guest while a device reads it: headers, tables, ranges
 * and the ring's own descriptors from the middle up. What it may write is the same at all times (`fuzz-layout.ts`).
 */
import { type Pointer, toArrayBuffer } from "bun:ffi";
import { HostileHalf } from "./fuzz-hostile.ts";
import {
  FILE_BYTES,
  HOSTILE_HEADER_COUNT,
  HOSTILE_RANGE_COUNT,
  HOSTILE_TABLE_COUNT,
} from "./fuzz-layout.ts";
import { SeededRandom } from "./random.ts";

export interface MutatorData {
  readonly address: number;
  readonly seed: number;
  readonly control: SharedArrayBuffer;
}

/** Words of the control memory. */
export const MUTATOR = { STATE: 0, ENTRIES: 1, CHANGES: 2, IS_PACKED: 3 } as const;
export const MUTATOR_STATE = { RESTS: 0, CHANGES: 1, SHALL_REST: 2, ENDS: 3 } as const;

const BURST = 64;
const PAUSE_MS = 0.05;

declare const self: { onmessage: (event: MessageEvent<MutatorData>) => void };

if (!Bun.isMainThread) {
  self.onmessage = ({ data }) => run(data);
}

// --- internal ---

function run({ address, seed, control }: MutatorData): void {
  const random = new SeededRandom(seed);
  const half = new HostileHalf(toArrayBuffer(address as Pointer, 0, FILE_BYTES), random);
  const words = new Int32Array(control);
  for (;;) {
    const state = Atomics.load(words, MUTATOR.STATE);
    if (state === MUTATOR_STATE.ENDS) {
      return;
    }
    if (state === MUTATOR_STATE.SHALL_REST) {
      Atomics.store(words, MUTATOR.STATE, MUTATOR_STATE.RESTS);
    }
    if (state !== MUTATOR_STATE.CHANGES) {
      Atomics.wait(words, MUTATOR.STATE, MUTATOR_STATE.RESTS, 100);
      continue;
    }
    const entries = Atomics.load(words, MUTATOR.ENTRIES);
    half.isPacked = Atomics.load(words, MUTATOR.IS_PACKED) === 1;
    for (let i = 0; i < BURST; i++) {
      change(half, random, entries);
    }
    Atomics.add(words, MUTATOR.CHANGES, BURST);
    Atomics.wait(words, MUTATOR.STATE, MUTATOR_STATE.CHANGES, PAUSE_MS);
  }
}

function change(half: HostileHalf, random: SeededRandom, entries: number): void {
  const middle = entries / 2;
  // A ring whose descriptors must not be changed has no entries here.
  switch (random.below(entries === 0 ? 4 : 5)) {
    case 0:
      half.changeHeader(random.below(HOSTILE_HEADER_COUNT));
      return;
    case 1:
      half.changeEntry(random.below(HOSTILE_TABLE_COUNT), random.below(8));
      return;
    case 2:
      half.changeTable(random.below(HOSTILE_TABLE_COUNT));
      return;
    case 3:
      half.changeRange(random.below(HOSTILE_RANGE_COUNT));
      return;
    default:
      half.changeRingEntry(middle + random.below(middle), middle, entries);
  }
}
