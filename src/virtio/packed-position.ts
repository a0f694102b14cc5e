/**
 * Whether a packed ring can go on at a position that a front end tells. One whose backend was killed tells where it
 * began, long ago, and only what the backend noted says where it is. Without such notes the ring itself gives most
 * wrong positions away:
 *
 *   | ... lap w | w available ... w available | lap before ... |
 *              ^ position, of lap w            ^ what is used already in its lap cannot be here
 *
 * What the driver wrote before the position is of its lap, and what waits to be taken from there on was not used. A
 * driver may be writing a chain meanwhile, its first descriptor last.
 */
import {
  AVAILABLE_BIT,
  availableBits,
  LAP_BIT,
  OWNER_MASK,
  PLACE_MASK,
} from "../formats/packed-ring.ts";

/** Why a ring is left alone. */
export const NO_POSITION =
  "an earlier backend had gone on with it, and only that one knew how far; reset the virtual machine, " +
  "and use a front end that tracks requests in flight";

const DESCRIPTOR_WORDS = 4;
const TAIL = 3;

/** @param ring its descriptors, as words */
export function isPositionOf(ring: Int32Array, position: number): boolean {
  const entries = ring.length / DESCRIPTOR_WORDS;
  let place = position & PLACE_MASK;
  let lap = position & LAP_BIT;
  const before = place === 0 ? entries - 1 : place - 1;
  const lapBefore = place === 0 ? lap ^ LAP_BIT : lap;
  for (let i = 0; i < entries; i++) {
    if ((tailAt(ring, place) & OWNER_MASK) !== availableBits(lap)) {
      return lapAt(ring, place) !== lap && lapAt(ring, before) === lapBefore;
    }
    place += 1;
    if (place === entries) {
      place = 0;
      lap ^= LAP_BIT;
    }
  }
  return true; // the ring is full
}

// --- internal ---

function tailAt(ring: Int32Array, place: number): number {
  return ring[place * DESCRIPTOR_WORDS + TAIL] ?? 0;
}

function lapAt(ring: Int32Array, place: number): number {
  return (tailAt(ring, place) & AVAILABLE_BIT) === 0 ? 0 : LAP_BIT;
}
