/**
 * The packed virtqueue (virtio 1.2, section 2.8): one ring of `entries` descriptors that both sides write,
 * and a word a side that says when it wants to be told. Any size up to 32768, all little endian.
 *
 *     descriptor ring   16 * entries   align 16   [ address u64 | length u32 | id u16 | flags u16 ] ...
 *     driver events     4              align 4    [ place u15, lap u1 | flags u16 ]   written by the driver
 *     device events     4              align 4    the same                            written by the device
 *
 * Each side counts its laps of the ring by one bit, 1 in the first. A descriptor of lap `w` is available with
 * AVAILABLE = w and USED = !w, and used with both = w. A chain lies in descriptors that follow each other, its
 * id is in the last; one used descriptor answers it, and both sides then skip as many as the chain had.
 */

import { DESCRIPTOR_BYTES } from "./virtio-ring.ts";

export const PACKED_ENTRIES_MAX = 32_768;
export const EVENT_AREA_BYTES = 4;
export const EVENT_AREA_ALIGN = 4;

/** Flags in the last word of a descriptor, above the id. */
export const PACKED_NEXT = 1 << 16;
export const PACKED_WRITE = 2 << 16;
export const PACKED_INDIRECT = 4 << 16;
export const AVAILABLE_BIT = 1 << 23;
const USED = 1 << 31;
/** The two bits that tell whose a descriptor is, as a signed word. */
export const OWNER_MASK = AVAILABLE_BIT | USED;

/** Values of an event area's flags, in its upper half. */
export const EVENTS_ALL = 0;
export const EVENTS_NONE = 1 << 16;
/** At one descriptor; with EVENT_IDX only. */
export const EVENTS_AT = 2 << 16;
export const EVENTS_MASK = 3 << 16;

/** A position: the place in the ring, and the lap's bit above it. */
export const PLACE_MASK = 0x7fff;
export const LAP_BIT = 0x8000;
/** Where both sides of a fresh ring begin. */
export const FIRST_POSITION = 0x8000;

/** Of an available descriptor in a lap. */
export function availableBits(lap: number): number {
  return lap === 0 ? USED : AVAILABLE_BIT;
}

/** Of a used descriptor in a lap. */
export function usedBits(lap: number): number {
  return lap === 0 ? 0 : OWNER_MASK;
}

export function isPackedSize(entries: number): boolean {
  return entries >= 1 && entries <= PACKED_ENTRIES_MAX;
}

export function descriptorRingBytes(entries: number): number {
  return entries * DESCRIPTOR_BYTES;
}

/**
 * Whether the other side waits for one of the `moved` descriptors from `position` on.
 * @param events its event area
 */
export function needPackedEvent(
  events: number,
  entries: number,
  position: number,
  moved: number,
): boolean {
  const isLater = ((events ^ position) & LAP_BIT) !== 0;
  const ahead = (events & PLACE_MASK) - (position & PLACE_MASK) + (isLater ? entries : 0);
  return ahead >= 0 && ahead < moved;
}
