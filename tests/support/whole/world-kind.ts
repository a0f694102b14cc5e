/** What a seed decides about a simulated backend, its disks and its guest. */
import type { SeededRandom } from "../random.ts";

export interface WorldKind {
  readonly queues: number;
  readonly slots: number;
  readonly stripes: number;
  readonly stripeSectors: number;
  /** Of all stripes: so many of the last one are there. */
  readonly lastStripeSectors: number;
  readonly isLazy: boolean;
  readonly isImage: boolean;
  /** The source ends in the middle of a stripe, before the disk does. */
  readonly isSourceShort: boolean;
  readonly isCompressed: boolean;
  readonly isCopyOnRead: boolean;
  readonly isWrittenTracked: boolean;
  readonly isBackground: boolean;
  readonly isEnciphered: boolean;
  readonly isDiscardOffered: boolean;
  readonly isWriteThrough: boolean;
  readonly hasEventIndex: boolean;
  /** The front end keeps what the queues note of their requests under way. */
  readonly hasInflight: boolean;
  readonly canAllocate: boolean;
  readonly fetchBuffers: number;
  readonly intents: number;
  readonly pollTimeoutUs: number;
  /** One piece of work in so many fails; 0 for none. */
  readonly faults: number;
  readonly sourceFaults: number;
}

export function anyKind(random: SeededRandom): WorldKind {
  const isLazy = !random.oneIn(4);
  const isImage = random.oneIn(2);
  const stripes = random.pick([24, 60, 516]);
  const stripeSectors = stripes > 500 ? 4 : random.pick([4, 8, 16]);
  return {
    queues: random.between(1, 3),
    slots: random.pick([2, 8, 64]),
    stripes,
    stripeSectors,
    lastStripeSectors: random.pick([stripeSectors, 1, stripeSectors - 1]),
    isLazy,
    isImage,
    isSourceShort: random.oneIn(2),
    isCompressed: random.oneIn(2),
    isCopyOnRead: random.oneIn(2),
    isWrittenTracked: random.oneIn(2),
    isBackground: random.oneIn(2),
    isEnciphered: random.oneIn(3),
    isDiscardOffered: !random.oneIn(3),
    isWriteThrough: random.oneIn(6),
    hasEventIndex: random.oneIn(2),
    hasInflight: random.oneIn(2),
    canAllocate: !random.oneIn(3),
    fetchBuffers: random.between(2, 5),
    intents: random.pick([1, 2, 64]),
    pollTimeoutUs: random.pick([0, 0, 50]),
    faults: random.pick([0, 0, 100, 20]),
    sourceFaults: random.pick([0, 0, 30, 5]),
  };
}

export function sectorsOf(kind: WorldKind): number {
  return (kind.stripes - 1) * kind.stripeSectors + kind.lastStripeSectors;
}

export function sourceSectorsOf(kind: WorldKind): number {
  const whole = kind.isSourceShort ? kind.stripes - 3 : kind.stripes;
  const end = Math.min(whole * kind.stripeSectors, sectorsOf(kind));
  return kind.isSourceShort ? end - 1 : end;
}
