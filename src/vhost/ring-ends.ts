/**
 * Where the rings of this process stopped last, with nothing under way. It outlives the connection: a front end that
 * comes back starts a ring from there, and whatever waits in it has been taken by nobody.
 */

export class RingEnds {
  readonly #bases = new Map<number, number>();
  readonly #isHandedOver: boolean;

  /** @param isHandedOver the backend before this one ended all requests; otherwise it may have been killed */
  constructor(isHandedOver: boolean) {
    this.#isHandedOver = isHandedOver;
  }

  /** Whether a ring that starts at this base may have been left there by a backend that was killed. */
  mayBeLeft(ring: number, base: number): boolean {
    return !this.#isHandedOver && this.#bases.get(ring) !== base;
  }

  stopped(ring: number, base: number): void {
    this.#bases.set(ring, base);
  }
}
