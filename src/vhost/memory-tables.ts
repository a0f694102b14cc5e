/**
 * The front end's memory as all threads know it: the control worker stores two tables in shared memory, queue
 * workers load them when they are told of a change.
 */
import { GuestMemory, type GuestRegion, REGIONS_MAX } from "../virtio/guest-memory.ts";

/** Regions that wait for requests to end; a front end that exchanges its memory more often than that is refused. */
export const RETIRED_MAX = 512;
const MAPPED_MAX = REGIONS_MAX + RETIRED_MAX;
const IN_FORCE_WORDS = GuestMemory.sharedWords();
const MAPPED_WORDS = GuestMemory.sharedWords(MAPPED_MAX);

export class MemoryTables {
  readonly #inForce: Float64Array;
  readonly #mapped: Float64Array;

  static readonly sharedBytes = (IN_FORCE_WORDS + MAPPED_WORDS) * 8;

  constructor(shared: SharedArrayBuffer) {
    this.#inForce = new Float64Array(shared, 0, IN_FORCE_WORDS);
    this.#mapped = new Float64Array(shared, IN_FORCE_WORDS * 8, MAPPED_WORDS);
  }

  /** @param retired regions that requests under way may still write to */
  store(inForce: readonly GuestRegion[], retired: readonly GuestRegion[]): void {
    GuestMemory.store(this.#inForce, inForce);
    // The same table the other way round: what it calls guest addresses are those of this process.
    const mapped = [...inForce, ...retired].map(({ guestAddress, hostAddress, sizeBytes }) => ({
      guestAddress: hostAddress,
      hostAddress: guestAddress,
      sizeBytes,
    }));
    GuestMemory.store(this.#mapped, mapped);
  }

  /** Guest addresses to those of this process, of the table in force. */
  loadInForce(target: GuestMemory): void {
    target.load(this.#inForce);
  }

  /** The way back, of all that is mapped. @param target made by `forMapped` */
  loadMapped(target: GuestMemory): void {
    target.load(this.#mapped);
  }

  static forMapped(): GuestMemory {
    return new GuestMemory(MAPPED_MAX);
  }
}
