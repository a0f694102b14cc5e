/**
 * The memory in which a back end notes the requests that it has taken and not yet answered ("Inflight I/O
 * tracking" of vhost-user). The front end keeps it when the back end dies; its successor reads there what to do
 * again. One region a queue, each a multiple of 64 bytes, little endian. Of a split ring:
 *
 *     0          8         10         12                14          16
 *     | features | version | desc_num | last_batch_head | used_idx  | entry of head 0 | entry of head 1 ...
 *
 *   an entry     0          1   6      8
 *                | inflight |   | next | counter u64 |
 *
 * Of a packed ring, whose used descriptors are written over those of requests, so that they are copied:
 *
 *     0          8         10         12          14              16         18             20      21      22..31
 *     | features | version | desc_num | free_head | old_free_head | used_idx | old_used_idx | wrap | old wrap |  |
 *
 *   an entry     0          1   2      4      6     8         16   18      20    24
 *                | inflight |   | next | last | num | counter | id | flags | len | addr |
 *
 * Region and back ends agree on `features`, of which none is defined: a front end keeps the memory and looks at nothing
 * in it. One bit is ours, in the first region: the guest has no write cache. A guest that turned it off sends no
 * flushes, and no front end tells that to the next back end. One of another make ignores the bit.
 *
 * `counter` tells in which order requests were taken. `last_batch_head` and `next` are a list of those whose
 * answers were shown last; they count as answered when `used_idx` is not yet the used index of the ring.
 */

export const REGION_VERSION = 1;
const REGION_ALIGN = 64;

export const SPLIT_HEADER_BYTES = 16;
export const SPLIT_ENTRY_BYTES = 16;

/** Offsets in the header of a region. */
export const REGION_FIELD = {
  features: 0,
  version: 8,
  entries: 10,
  lastBatchHead: 12,
  usedIndex: 14,
} as const;
/** In `features`: every write is durable when it is answered. */
export const REGION_CACHE_OFF = 1;

/** Offsets in an entry. */
export const ENTRY_FIELD = { isInFlight: 0, next: 6, counter: 8 } as const;

export const PACKED_HEADER_BYTES = 32;
export const PACKED_ENTRY_BYTES = 32;

/** Offsets in the header of a packed ring's region. */
export const PACKED_FIELD = {
  freeHead: 12,
  oldFreeHead: 14,
  usedPlace: 16,
  oldUsedPlace: 18,
  usedLap: 20,
  oldUsedLap: 21,
} as const;
/** Offsets in an entry of it; the flag is at 0. */
export const PACKED_ENTRY = {
  next: 2,
  last: 4,
  number: 6,
  counter: 8,
  id: 16,
  length: 20,
  address: 24,
} as const;
/** Ends the list of free entries: no ring has as many. */
export const FREE_END = 0xffff;

/** Size of a queue's region. @param entries of the ring, at most */
export function splitRegionBytes(entries: number): number {
  const bytes = SPLIT_HEADER_BYTES + entries * SPLIT_ENTRY_BYTES;
  return Math.ceil(bytes / REGION_ALIGN) * REGION_ALIGN;
}

/** The same of a packed ring. */
export function packedRegionBytes(entries: number): number {
  const bytes = PACKED_HEADER_BYTES + entries * PACKED_ENTRY_BYTES;
  return Math.ceil(bytes / REGION_ALIGN) * REGION_ALIGN;
}
