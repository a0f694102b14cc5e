/**
 * A whole backend in a simulation: disks with faults, a source, a guest, a front end, and lives that end in a crash, in
 * a loss of power, or in order. One thing happens at a time, and a seed decides which.
 *
 *   step:  a thread that was woken has its turn | I/O ends | a timer expires | the guest acts | the front end acts
 *   now and then: what a loss of power would leave is looked at, sector by sector
 */
import { STRIPE_FLAG } from "../../../src/formats/metadata.ts";
import { SeededRandom } from "../random.ts";
import { Backend } from "./backend.ts";
import { DescriptorChannel, FrontEnd, InflightRegion, isConnectionLost } from "./front-end.ts";
import { Guest } from "./guest.ts";
import { GuestModel } from "./guest-model.ts";
import type { SimFaults } from "./sim-engine.ts";
import { SimTime } from "./sim-time.ts";
import { WorldDisks } from "./world-disks.ts";
import { anyKind, type WorldKind } from "./world-kind.ts";

const EIO = -5;
const EAGAIN = -11;
const EINTR = -4;
const ENOSPC = -28;
const EOPNOTSUPP = -95;
/** Simulated: for all that waits to end once nothing fails any more. */
const PATIENCE_NS = 120e9;
const STEPS_MAX = 100_000;

export class World implements Disposable {
  readonly kind: WorldKind;
  readonly counts = { steps: 0, images: 0, crashes: 0, ok: 0, failed: 0, bad: 0, fetched: 0 };
  readonly #random: SeededRandom;
  readonly #time: SimTime;
  readonly #disks: WorldDisks;
  readonly #model: GuestModel;
  readonly #channel = new DescriptorChannel();
  #guest: Guest;
  #inflight: InflightRegion | undefined;
  #backend: Backend | undefined;
  #frontEnd: FrontEnd | undefined;
  #isFaulty = true;
  #isGuestBusy = true;
  /** Of the control thread, since the last step. */
  #waits = 0;
  #flags: Uint8Array;

  constructor(seed: number, options: { readonly isLying?: boolean } = {}) {
    this.#random = new SeededRandom(seed);
    this.kind = anyKind(this.#random);
    this.#time = new SimTime(this.#random);
    this.#disks = new WorldDisks(this.kind, this.#random);
    this.#disks.base.isLying = options.isLying ?? false;
    const { base } = this.#disks;
    this.#model = new GuestModel(this.#disks.initial, (sector) => base.isDropped(sector));
    this.#flags = this.#disks.decode(this.#disks.metadata.current).flags;
    this.#guest = this.#newGuest(1);
    this.#inflight = this.kind.hasInflight ? new InflightRegion() : undefined;
  }

  play(lives: number, steps: number): void {
    for (let life = 0; life < lives; life++) {
      this.#start();
      for (let step = 0; step < steps; step++) {
        this.#step();
      }
      const choice = this.#random.below(3);
      if (life === lives - 1 || choice === 0) {
        this.#endInOrder();
      } else if (choice === 1) {
        this.#kill();
      } else {
        this.#losePower();
      }
    }
  }

  /** For a message: what is under way. */
  describe(): string {
    return `${this.#guest.describe()}; ${this.#backend?.describe() ?? "no backend"}`;
  }

  [Symbol.dispose](): void {
    this.#backend?.die();
    this.#guest[Symbol.dispose]();
    this.#inflight?.[Symbol.dispose]();
    this.#disks[Symbol.dispose]();
    this.#channel[Symbol.dispose]();
  }

  // --- internal: what happens ---

  #step(): void {
    this.#waits = 0;
    if (this.#random.oneIn(60)) {
      this.#disturb();
    } else {
      this.#happen();
    }
    if (this.#random.oneIn(25)) {
      this.#lookAtPowerLoss();
    }
  }

  /** False when nothing can. */
  #happen(): boolean {
    this.counts.steps += 1;
    if (this.#backend?.takeControlWake() === true) {
      this.#frontEnd?.releaseMemory();
    }
    const ready = this.#backend?.ready() ?? [];
    const { dueCount } = this.#time;
    const guestChoices = this.#isGuestBusy ? 2 : 0;
    const choices = ready.length + Math.min(dueCount, 3) + guestChoices;
    this.#time.pass(this.#random.below(20_000));
    if (choices === 0) {
      return this.#time.jump();
    }
    const choice = this.#random.below(choices);
    if (choice < ready.length) {
      ready[choice]?.turn();
      this.#guest.look();
    } else if (choice < choices - guestChoices) {
      this.#time.runOne();
    } else {
      this.#guest.act();
      if (ready.length + dueCount === 0 && this.#random.oneIn(4)) {
        this.#time.jump();
      }
    }
    return true;
  }

  /** The control thread waits. */
  #wait(): void {
    this.#waits += 1;
    if (!this.#happen() || this.#waits > STEPS_MAX) {
      throw new Error("the control thread waits for ever");
    }
  }

  #disturb(): void {
    const backend = this.#backend;
    if (backend === undefined) {
      return;
    }
    switch (this.#random.below(8)) {
      case 0:
        backend.limit(this.#random.oneIn(3) ? this.#random.pick([1000, 20_000]) : undefined);
        return;
      case 1:
        backend.operate(this.#random);
        return;
      default:
        this.#disturbFrontEnd(backend);
    }
  }

  #disturbFrontEnd(backend: Backend): void {
    const frontEnd = this.#frontEnd;
    try {
      if (frontEnd === undefined) {
        this.#connect(backend);
      } else if (this.#random.oneIn(8)) {
        this.#frontEnd = undefined;
        frontEnd.disconnect();
      } else {
        frontEnd.act();
      }
    } catch (error) {
      if (!isConnectionLost(error)) {
        throw error;
      }
      this.#frontEnd = undefined;
      frontEnd?.disconnect();
    }
  }

  #connect(backend: Backend): void {
    const frontEnd = new FrontEnd({
      guest: this.#guest,
      backend,
      random: this.#random,
      channel: this.#channel,
      hasEventIndex: this.kind.hasEventIndex,
      inflight: this.#inflight,
    });
    this.#frontEnd = frontEnd;
    frontEnd.connect();
  }

  // --- internal: lives ---

  #start(): void {
    const { kind } = this;
    const { base, metadata, image, archive, cipher, sectors } = this.#disks;
    metadata.write(0, metadata.current.slice(), true); // as DiskMetadata.open does, before anybody relies on it
    this.#flags = this.#disks.decode(metadata.current).flags;
    this.#isFaulty = true;
    this.#isGuestBusy = true;
    const isSourceFault = () => this.#isFault(kind.sourceFaults);
    this.#backend = new Backend({
      kind: { ...kind, cipherContext: cipher?.contextAddress ?? 0 },
      time: this.#time,
      random: this.#random,
      base,
      metadata,
      image,
      archive,
      flags: this.#flags,
      sectors,
      faults: this.#faults(kind.faults),
      sourceFaults: this.#faults(kind.sourceFaults),
      isSourceFault,
      wait: () => this.#wait(),
      pass: () => {
        this.#happen();
      },
    });
    if (this.#inflight === undefined) {
      // What the guest chose ended with the backend: such a front end does not tell it to the next one.
      this.#guest.isWriteback = !kind.isWriteThrough;
    }
    this.#connect(this.#backend);
  }

  /** Nothing fails any more: all that was sent is answered, all can be read, and a stop loses nothing. */
  #endInOrder(): void {
    const backend = this.#backend;
    if (backend === undefined) {
      return;
    }
    this.#isFaulty = false;
    this.#isGuestBusy = false;
    this.#waits = 0;
    backend.limit(undefined);
    backend.calm();
    if (this.#frontEnd === undefined) {
      this.#connect(backend);
    }
    this.#drain();
    this.#readAll();
    backend.expectIdle();
    this.#frontEnd?.disconnect();
    this.#frontEnd = undefined;
    const point = this.#model.flushPoint();
    if (!backend.stop()) {
      throw new Error("a stop could not make durable what was written");
    }
    this.#guest.endFlush(point, true);
    this.#endLife(backend);
    this.#lookAtPowerLoss();
  }

  /** The process dies; the kernel, the disks and the guest's memory live on. */
  #kill(): void {
    const backend = this.#backend;
    this.counts.crashes += 1;
    this.#disks.base.endPending();
    this.#disks.metadata.endPending();
    if (backend?.hasUntold === true) {
      this.#guest.endFlush(this.#model.flushPoint(), false); // not promised: nobody else is told
    }
    backend?.die();
    this.#frontEnd?.abandon();
    this.#endLife(backend);
    const { base, metadata } = this.#disks;
    this.#eachSector(base.current, metadata.current, (sector, value) =>
      this.#model.check(sector, value),
    );
  }

  #losePower(): void {
    const backend = this.#backend;
    this.counts.crashes += 1;
    const { base, metadata } = this.#disks;
    base.losePower();
    metadata.losePower();
    backend?.die();
    this.#frontEnd?.abandon();
    const found: number[] = [];
    this.#eachSector(base.current, metadata.current, (sector, value) => {
      this.#model.checkAfterPowerLoss(sector, value);
      found.push(value);
    });
    const value = this.#guest.nextValue;
    for (const index of this.#guest.queues.keys()) {
      this.#guest.forget(index);
    }
    for (const [sector, content] of found.entries()) {
      this.#model.collapse(sector, content);
    }
    this.#endLife(backend);
    this.#guest[Symbol.dispose]();
    this.#guest = this.#newGuest(value);
    if (this.#inflight !== undefined) {
      this.#inflight[Symbol.dispose]();
      this.#inflight = new InflightRegion();
    }
  }

  #endLife(backend: Backend | undefined): void {
    this.#frontEnd = undefined;
    this.#backend = undefined;
    const { answers } = this.#guest;
    this.counts.ok += answers.ok;
    this.counts.failed += answers.failed;
    this.counts.bad += answers.bad;
    Object.assign(answers, { ok: 0, failed: 0, bad: 0 });
    this.counts.fetched += backend?.state?.counter("fetched") ?? 0;
  }

  #drain(): void {
    const untilNs = this.#time.nowNs + PATIENCE_NS;
    for (let steps = 0; steps < STEPS_MAX; steps++) {
      this.#guest.settle();
      if (this.#guest.underWay === 0) {
        return;
      }
      if (!this.#happen() || this.#time.nowNs > untilNs) {
        break;
      }
    }
    throw new Error("requests hang");
  }

  #readAll(): void {
    for (let first = 0; first < this.#disks.sectors; ) {
      first = this.#guest.readPart(first);
      this.#drain();
    }
    this.#guest.flush();
    this.#drain();
  }

  #newGuest(firstValue: number): Guest {
    const { kind } = this;
    const { sectors } = this.#disks;
    const hot = [0, Math.floor(sectors / 2), sectors - 2 * kind.stripeSectors];
    return new Guest(
      {
        random: this.#random,
        model: this.#model,
        queues: kind.queues,
        hotSectors: hot.map((first) => [first, 2 * kind.stripeSectors] as const),
        stripeSectors: kind.stripeSectors,
        isEnciphered: kind.isEnciphered,
        mayFail: () => this.kind.faults > 0 || this.kind.sourceFaults > 0,
        isDiscardOffered: kind.isDiscardOffered,
        isWriteback: !kind.isWriteThrough,
        firstValue,
      },
      sectors,
    );
  }

  // --- internal: faults, and what must hold ---

  #faults(oneIn: number): SimFaults {
    return {
      transfer: (kind, bytes) => this.#transferFault(kind, bytes, oneIn),
      sync: () => (this.#isFault(oneIn) ? EIO : 0),
      delayNs: () =>
        this.#random.oneIn(32) ? this.#random.below(2e9) : this.#random.below(500_000),
    };
  }

  #transferFault(
    kind: "read" | "write" | "allocate",
    bytes: number,
    oneIn: number,
  ): number | undefined {
    if (kind === "allocate" && !this.kind.canAllocate) {
      return EOPNOTSUPP;
    }
    if (!this.#isFault(oneIn)) {
      return undefined;
    }
    const fault = this.#random.pick([EIO, EIO, EAGAIN, EINTR, ENOSPC, 0, 512, 1024]);
    return fault >= bytes || (kind === "allocate" && fault >= 0) ? EIO : fault;
  }

  #isFault(oneIn: number): boolean {
    return this.#isFaulty && oneIn > 0 && this.#random.oneIn(oneIn);
  }

  #lookAtPowerLoss(): void {
    this.counts.images += 1;
    const { base, metadata } = this.#disks;
    this.#eachSector(base.imageAfterPowerLoss(), metadata.imageAfterPowerLoss(), (sector, value) =>
      this.#model.checkAfterPowerLoss(sector, value),
    );
  }

  #eachSector(
    base: Uint8Array,
    metadataImage: Uint8Array,
    visit: (sector: number, value: number) => void,
  ): void {
    const { stripeSectors, isWrittenTracked, isLazy } = this.kind;
    const metadata = this.#disks.decode(metadataImage);
    let sector = 0;
    for (const value of this.#disks.contents(base, metadata)) {
      visit(sector, value);
      const stripe = Math.floor(sector / stripeSectors);
      const flags = metadata.flags[stripe] ?? 0;
      if (isLazy && isWrittenTracked && value > 0 && (flags & STRIPE_FLAG.WRITTEN) === 0) {
        throw new Error(`stripe ${stripe} holds the guest's data and is not WRITTEN`);
      }
      sector += 1;
    }
  }
}
