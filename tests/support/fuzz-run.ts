/**
 * Fuzzes the ring of a running backend: batches of checked requests and hostile chains side by side, in rings of all
 * shapes that are stopped, broken, left and set up anew. What must hold is checked after every chain.
 */
import { hasBit } from "../../src/formats/vhost-user.ts";
import { FEATURE, REQUEST_TYPE } from "../../src/formats/virtio-blk.ts";
import { FuzzGuest } from "./fuzz-guest.ts";
import { HostileHalf } from "./fuzz-hostile.ts";
import {
  CHECKED_SECTOR,
  CHECKED_SECTORS,
  HOSTILE_HEADER_COUNT,
  HOSTILE_RANGE_COUNT,
  HOSTILE_TABLE_COUNT,
  SLOTS,
} from "./fuzz-layout.ts";
import { FuzzRequests, writeTable } from "./fuzz-requests.ts";
import type { Descriptor } from "./fuzz-ring.ts";
import type { FuzzSectors } from "./fuzz-sectors.ts";
import { SeededRandom } from "./random.ts";
import { MUTATOR, MUTATOR_STATE, type MutatorData } from "./ring-mutator.ts";

const BATCHES_OF_A_RING = 40;
/** Sectors of one request of the last look at everything. */
const READ_SECTORS = 32;

export interface FuzzCounts {
  chains: number;
  checked: number;
  hostile: number;
  rings: number;
  packedRings: number;
  brokenRings: number;
  /** Changes made to hostile memory by another thread meanwhile. */
  changes: number;
}

export class FuzzRun implements Disposable {
  readonly counts: FuzzCounts = {
    chains: 0,
    checked: 0,
    hostile: 0,
    rings: 0,
    packedRings: 0,
    brokenRings: 0,
    changes: 0,
  };
  readonly #random: SeededRandom;
  readonly #guest: FuzzGuest;
  readonly #requests: FuzzRequests;
  readonly #hostile: HostileHalf;
  readonly #mutator: Worker;
  readonly #control = new Int32Array(new SharedArrayBuffer(16));
  /** How often a head is still to be used, and the slot of a checked one. */
  readonly #due = new Int32Array(0x10000);
  readonly #slotOf = new Int32Array(0x10000).fill(-1);
  readonly #isEncrypted: boolean;
  #isMutating = false;

  constructor(socketPath: string, sectors: FuzzSectors, seed: number, isEncrypted: boolean) {
    this.#isEncrypted = isEncrypted;
    this.#random = new SeededRandom(seed);
    this.#guest = new FuzzGuest(socketPath);
    this.#guest.connect(this.#random.oneIn(2));
    const isDiscardOffered = () => hasBit(this.#guest.features, FEATURE.BLK_DISCARD);
    this.#requests = new FuzzRequests(this.#guest, sectors, this.#random, isDiscardOffered);
    this.#hostile = new HostileHalf(this.#guest.memory, this.#random);
    this.#mutator = new Worker(new URL("./ring-mutator.ts", import.meta.url));
    this.#mutator.postMessage({
      address: this.#guest.address,
      seed,
      control: this.#control.buffer as SharedArrayBuffer, // as it was made
    } satisfies MutatorData);
  }

  /** Chains of all kinds until `count` of them are used. @throws Error on the first thing that is not as it must be */
  fuzz(count: number): void {
    while (this.counts.chains < count) {
      this.#startRing();
      for (let i = this.#random.below(BATCHES_OF_A_RING); i >= 0; i--) {
        this.#batch();
      }
      this.#endRing();
    }
    this.counts.changes = Atomics.load(this.#control, MUTATOR.CHANGES);
  }

  /** Reads all checked sectors. @throws Error when one is not what it must be */
  readEverything(): void {
    this.#startRing();
    const { ring } = this.#guest;
    const slots = Math.min(Math.floor(ring.entries / 2), SLOTS);
    for (let done = 0; done < CHECKED_SECTORS; ) {
      ring.beginBatch();
      for (let slot = 0; slot < slots && done < CHECKED_SECTORS; slot++) {
        const sector = CHECKED_SECTOR + done;
        const chain = this.#requests.transferAt(slot, REQUEST_TYPE.IN, sector, READ_SECTORS);
        this.#offerChecked(slot, chain, false);
        done += READ_SECTORS;
      }
      this.#guest.show();
      this.#takeAll();
    }
    this.#guest.stopRing();
  }

  /** The other thread rests before the memory goes that it changes: `terminate` does not wait for it. */
  [Symbol.dispose](): void {
    this.#setMutating(false);
    Atomics.store(this.#control, MUTATOR.STATE, MUTATOR_STATE.ENDS);
    Atomics.notify(this.#control, MUTATOR.STATE);
    this.#mutator.terminate();
    this.#guest[Symbol.dispose]();
  }

  // --- internal: rings ---

  #startRing(): void {
    const random = this.#random;
    const guest = this.#guest;
    const isPacked = random.oneIn(2);
    this.#hostile.isPacked = isPacked;
    this.#hostile.reset();
    const shape = {
      isPacked,
      hasEventIndex: random.oneIn(2),
      isPolling: random.oneIn(4),
      isKickingAsAsked: random.oneIn(2),
    };
    guest.startRing(shape, random);
    const { mutableFrom, entries } = guest.ring;
    for (let i = mutableFrom; i < entries; i++) {
      this.#hostile.changeRingEntry(i, mutableFrom, entries);
    }
    this.#setMutating(random.oneIn(2));
    this.counts.rings += 1;
    this.counts.packedRings += isPacked ? 1 : 0;
  }

  #endRing(): void {
    const random = this.#random;
    const guest = this.#guest;
    this.#setMutating(false);
    // What an encrypted disk holds where nobody has written is random: unlikely bytes, instead of impossible ones.
    if (!this.#isEncrypted && this.#hostile.forbiddenBytes() > 0) {
      throw new Error("hostile memory holds what it must not");
    }
    switch (random.below(7)) {
      case 3:
        guest.ring.scramble();
        guest.kick();
        Bun.sleepSync(1); // it may look, and need not
        guest.stopRing();
        return;
      case 0:
        guest.ring.spoil();
        guest.kick();
        this.#breakRing();
        return;
      case 1:
        this.#offerHostile();
        this.#offerHostile();
        guest.show();
        guest.resetDevice();
        this.#forgetDue();
        return;
      case 2:
        this.#offerReads();
        this.#offerHostile();
        guest.show();
        guest.reconnect(random.oneIn(2));
        this.#forgetDue();
        return;
      default:
        if (guest.stopRing() !== guest.ring.endBase) {
          throw new Error("the ring stopped at another index than that of the last chain");
        }
    }
  }

  /** What no driver leaves behind ends the ring, and the device says so. */
  #breakRing(): void {
    const guest = this.#guest;
    if (!guest.isBroken()) {
      throw new Error("a ring that was spoilt is not broken");
    }
    this.counts.brokenRings += 1;
    guest.stopRing();
  }

  /** Changes to the ring's descriptors must not outlive its size: the other thread is asked, and waited for. */
  #setMutating(isMutating: boolean): void {
    const control = this.#control;
    const { entries, mutableFrom } = this.#guest.ring;
    Atomics.store(control, MUTATOR.ENTRIES, mutableFrom < entries ? entries : 0);
    Atomics.store(control, MUTATOR.IS_PACKED, this.#guest.ring.isPacked ? 1 : 0);
    if (isMutating === this.#isMutating) {
      return;
    }
    this.#isMutating = isMutating;
    const { CHANGES, SHALL_REST, RESTS } = MUTATOR_STATE;
    Atomics.store(control, MUTATOR.STATE, isMutating ? CHANGES : SHALL_REST);
    Atomics.notify(control, MUTATOR.STATE);
    const deadlineMs = performance.now() + 30_000;
    while (!isMutating && Atomics.load(control, MUTATOR.STATE) !== RESTS) {
      Bun.sleepSync(0.1);
      if (performance.now() > deadlineMs) {
        throw new Error("the thread that changes memory does not rest");
      }
    }
  }

  // --- internal: batches ---

  #batch(): void {
    const random = this.#random;
    const { ring } = this.#guest;
    this.#requests.beginBatch();
    ring.beginBatch();
    this.#changeHostile();
    const chains = random.between(1, Math.min(SLOTS, ring.entries - 8));
    const steps = random.pick([1, 1, 2, 4]);
    let slot = 0;
    for (let i = 0; i < chains; i++) {
      if (random.oneIn(3) || !ring.hasRoom(1)) {
        this.#offerHostile();
      } else {
        const isLarge = slot === 0 && random.oneIn(20);
        const chain = isLarge ? this.#requests.large(slot) : this.#requests.any(slot);
        this.#offerChecked(slot, chain, random.oneIn(3) && ring.hasRoom(chain.length));
        slot += 1;
      }
      if (random.oneIn(Math.ceil(chains / steps))) {
        this.#guest.show();
        this.#disturb();
      }
    }
    this.#guest.show();
    this.#takeAll();
  }

  /** Control messages while chains are under way. */
  #disturb(): void {
    const guest = this.#guest;
    switch (this.#random.below(40)) {
      case 0:
        guest.shareMemory();
        return;
      case 1:
        guest.enableRing(false);
        guest.enableRing(true);
        return;
      case 2:
        guest.renewCall();
        return;
      case 3:
        for (let i = 0; i < 20; i++) {
          guest.kick();
        }
        return;
      default:
    }
  }

  /** Puts a checked chain into the ring, by itself or as a table. */
  #offerChecked(slot: number, chain: readonly Descriptor[], isDirect: boolean): void {
    const guest = this.#guest;
    const table = isDirect ? undefined : writeTable(guest, slot, chain);
    const id = guest.ring.put(chain, table);
    this.#slotOf[id] = slot;
    this.#due[id] = 1;
    this.counts.checked += 1;
  }

  #offerHostile(): void {
    for (const id of this.#guest.ring.putHostile(this.#hostile)) {
      this.#due[id] = (this.#due[id] ?? 0) + 1;
      this.counts.hostile += 1;
    }
  }

  /** Reads only: what becomes of them is nobody's business. */
  #offerReads(): void {
    this.#requests.beginBatch();
    this.#guest.ring.beginBatch();
    for (let slot = 0; slot < 8; slot++) {
      this.#offerChecked(slot, this.#requests.transfer(slot, REQUEST_TYPE.IN), false);
    }
  }

  #changeHostile(): void {
    const random = this.#random;
    const { entries, mutableFrom } = this.#guest.ring;
    for (let i = 0; i < 8; i++) {
      this.#hostile.changeHeader(random.below(HOSTILE_HEADER_COUNT));
      this.#hostile.changeRange(random.below(HOSTILE_RANGE_COUNT));
      if (mutableFrom < entries) {
        const place = random.between(mutableFrom, entries - 1);
        this.#hostile.changeRingEntry(place, mutableFrom, entries);
      }
    }
    this.#hostile.changeTable(random.below(HOSTILE_TABLE_COUNT));
  }

  /** Every head is used as often as it was offered, and what is checked is as it must be. */
  #takeAll(): void {
    const guest = this.#guest;
    while (guest.ring.pending > 0) {
      const { id, length } = guest.takeUsed();
      const due = this.#due[id] ?? 0;
      if (due === 0) {
        throw new Error(`head ${id} is used more often than it was offered`);
      }
      this.#due[id] = due - 1;
      const slot = this.#slotOf[id] ?? -1;
      if (slot >= 0) {
        this.#slotOf[id] = -1;
        this.#requests.check(slot, length);
      }
      this.counts.chains += 1;
    }
  }

  #forgetDue(): void {
    this.#due.fill(0);
    this.#slotOf.fill(-1);
    this.#requests.reset();
  }
}
