/**
 * The split virtqueue (virtio 1.2, section 2.7): three areas in guest memory, little endian, for a ring
 * of `entries` (a power of two up to 32768).
 *
 *     descriptor table   16 * entries    align 16   [ address u64 | length u32 | flags u16 | next u16 ] ...
 *     available ring     6 + 2 * entries align 2    flags u16 | index u16 | head u16 ... | used_event u16
 *     used ring          6 + 8 * entries align 4    flags u16 | index u16 | [ id u32 | length u32 ] ... | avail_event u16
 *
 * The driver owns the first two, the device the third. Indexes run freely modulo 2^16.
 */

export const RING_ENTRIES_MAX = 32768;

export const DESCRIPTOR_BYTES = 16;
/** The chain goes on at `next`. */
export const DESCRIPTOR_NEXT = 1;
/** The device writes to it; otherwise it only reads. */
export const DESCRIPTOR_WRITE = 2;
/** It points to a table of descriptors. */
export const DESCRIPTOR_INDIRECT = 4;

/** Flags and index, in front of the elements of both rings. */
const RING_HEADER_BYTES = 4;

/** Flag of the available ring: the driver wants no call. */
export const AVAILABLE_NO_INTERRUPT = 1;
/** Flag of the used ring: the device wants no kick. */
export const USED_NO_NOTIFY = 1;

const AVAILABLE_ELEMENT_BYTES = 2;
export const USED_ELEMENT_BYTES = 8;

export const DESCRIPTORS_ALIGN = 16;
export const AVAILABLE_ALIGN = 2;
export const USED_ALIGN = 4;

/** Sizes of the three areas, and where the fields of EVENT_IDX are, all in bytes. */
export interface RingLayout {
  readonly entries: number;
  readonly descriptorsBytes: number;
  readonly availableBytes: number;
  readonly usedBytes: number;
  /** In the available ring, written by the driver. */
  readonly usedEventOffset: number;
  /** In the used ring, written by the device. */
  readonly availableEventOffset: number;
}

/** Whether a ring may have this many entries. */
export function isRingSize(entries: number): boolean {
  return entries >= 1 && entries <= RING_ENTRIES_MAX && (entries & (entries - 1)) === 0;
}

/** @param entries a size that `isRingSize` accepts */
export function ringLayout(entries: number): RingLayout {
  const usedEventOffset = RING_HEADER_BYTES + entries * AVAILABLE_ELEMENT_BYTES;
  const availableEventOffset = RING_HEADER_BYTES + entries * USED_ELEMENT_BYTES;
  return {
    entries,
    descriptorsBytes: entries * DESCRIPTOR_BYTES,
    availableBytes: usedEventOffset + 2,
    usedBytes: availableEventOffset + 2,
    usedEventOffset,
    availableEventOffset,
  };
}

/** Whether moving an index from `oldIndex` to `newIndex` stepped over `eventIndex`: the other side waits for that. */
export function needEvent(eventIndex: number, newIndex: number, oldIndex: number): boolean {
  return ((newIndex - eventIndex - 1) & 0xffff) < ((newIndex - oldIndex) & 0xffff);
}
