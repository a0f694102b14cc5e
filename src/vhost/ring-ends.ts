/**
 * Where the rings of this process stopped last, with nothing under way. It outlives the connection, and goes along to a
 * process that takes over: a front end that comes back starts a ring from there, and whatever waits in it has been
 * taken by nobody.
 */

/** Ring and base. */
export type RingEnd = readonly [number, number];

export class RingEnds {
  readonly #bases: Map<number, number>;

  /** @param handed of the process that handed the disk over; one that was killed has told nothing */
  constructor(handed: readonly RingEnd[]) {
    this.#bases = new Map(handed);
  }

  get all(): readonly RingEnd[] {
    return [...this.#bases];
  }

  /** Whether a ring that starts at this base may have been left there by a backend that was killed. */
  mayBeLeft(ring: number, base: number): boolean {
    return this.#bases.get(ring) !== base;
  }

  stopped(ring: number, base: number): void {
    this.#bases.set(ring, base);
  }
}
