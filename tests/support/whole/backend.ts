/**
 * One life of a backend in a simulation: the product's queue workers, stripe worker and shared memory, over simulated
 * engines. Threads have their turns one at a time; one that sleeps has none before a descriptor of its own is
 * signalled, so that a wake-up that is forgotten shows as a request that hangs.
 */

import type { DiskDescription, SharedDiskState } from "../../../src/device/disk-device.ts";
import { beginSync } from "../../../src/device/disk-requests.ts";
import { DiskSize } from "../../../src/device/disk-size.ts";
import { Heartbeat, Pulse } from "../../../src/device/heartbeat.ts";
import { Counter, QueueStatistics } from "../../../src/device/queue-statistics.ts";
import { StripeControl } from "../../../src/device/stripe-control.ts";
import type { StripeDescription } from "../../../src/device/stripe-description.ts";
import { type FetchBuffers, StripeWorker } from "../../../src/device/stripe-worker.ts";
import { TokenBuckets } from "../../../src/device/token-buckets.ts";
import { FlushGroup } from "../../../src/disk/flush-group.ts";
import type { EngineFile } from "../../../src/disk/io-engine.ts";
import { SlotWaits } from "../../../src/disk/slot-waits.ts";
import { createEvent, drainEvent, signalEvent } from "../../../src/ffi/event.ts";
import { mapAnonymous, unmap } from "../../../src/ffi/memory.ts";
import { closeDescriptor } from "../../../src/ffi/socket.ts";
import { NO_SOURCE } from "../../../src/sources/no-source.ts";
import { RawSource } from "../../../src/sources/raw-source.ts";
import type { StripeSource } from "../../../src/sources/stripe-source.ts";
import { IntentRing } from "../../../src/stripes/intent-ring.ts";
import { StripeState } from "../../../src/stripes/stripe-state.ts";
import { MemoryMap } from "../../../src/vhost/memory-map.ts";
import { MemoryTables } from "../../../src/vhost/memory-tables.ts";
import { QueueCommand, QueueMailbox, RingState } from "../../../src/vhost/queue-mailbox.ts";
import { QueueWorker } from "../../../src/vhost/queue-worker.ts";
import { RingEnds } from "../../../src/vhost/ring-ends.ts";
import type { RingMailbox } from "../../../src/vhost/vring.ts";
import type { SeededRandom } from "../random.ts";
import { DEVICE_ID } from "./guest.ts";
import { SECTOR, type SimDisk, sharedCopy } from "./sim-disk.ts";
import { SimEngine, type SimFaults } from "./sim-engine.ts";
import { type SimArchive, SimArchiveSource } from "./sim-source.ts";
import { SimMachine, type SimTime } from "./sim-time.ts";
import type { WorldKind } from "./world-kind.ts";

/** Numbers of files that only the simulated machine knows. */
const BASE_FD = 1_000_001;
const METADATA_FD = 1_000_002;
const IMAGE_FD = 1_000_003;

/** Address of the expanded keys; 0 for a plain disk. */
type BackendKind = WorldKind & { readonly cipherContext: number };

export interface BackendParts {
  readonly kind: BackendKind;
  readonly time: SimTime;
  readonly random: SeededRandom;
  readonly base: SimDisk;
  readonly metadata: SimDisk;
  readonly image: SimDisk | undefined;
  readonly archive: SimArchive | undefined;
  readonly flags: Uint8Array;
  readonly sectors: number;
  readonly faults: SimFaults;
  readonly sourceFaults: SimFaults;
  readonly isSourceFault: () => boolean;
  /** Lets something else happen while the control thread waits. @throws Error when nothing can */
  readonly wait: () => void;
  /** Lets something else happen, if anything can. */
  readonly pass: () => void;
}

interface Thread {
  readonly name: string;
  readonly engine: SimEngine;
  /** False when it has ended. */
  readonly turn: () => boolean;
  isEnded: boolean;
}

export class Backend {
  readonly memory: MemoryMap;
  readonly mailboxes: readonly RingMailbox[];
  readonly size: DiskSize;
  readonly disk: DiskDescription;
  readonly cache: { isWriteback: boolean };
  readonly ringEnds = new RingEnds([]);
  readonly state: StripeState | undefined;
  readonly control: StripeControl;
  isSourceClosed = false;
  readonly #parts: BackendParts;
  readonly #machine: SimMachine;
  readonly #engines: SimEngine[] = [];
  readonly #threads: Thread[] = [];
  readonly #workers: Disposable[] = [];
  readonly #shared: SharedDiskState;
  readonly #queueWakeFds: readonly number[];
  readonly #letters: readonly QueueMailbox[];
  readonly #statistics: readonly QueueStatistics[];
  readonly #buffers: FetchBuffers;
  readonly #buckets: TokenBuckets;
  #source: StripeSource = NO_SOURCE;
  readonly #controlWakeFd = createEvent();
  #stripeWakeFd = -1;

  constructor(parts: BackendParts) {
    const { kind, time, flags } = parts;
    this.#parts = parts;
    this.#machine = new SimMachine(time, (requestsMax, file) =>
      this.#openEngine(requestsMax, file),
    );
    const bytesEach = kind.stripeSectors * SECTOR;
    this.#buffers = {
      address: mapAnonymous(kind.fetchBuffers * bytesEach),
      count: kind.fetchBuffers,
      bytesEach,
      reserved: 1,
      reservedWhenAsked: kind.fetchBuffers - 1,
    };
    this.#queueWakeFds = Array.from({ length: kind.queues }, () => createEvent());
    this.size = DiskSize.create(parts.sectors);
    this.cache = { isWriteback: !kind.isWriteThrough };
    this.control = StripeControl.create(kind.isLazy ? "open" : "none");
    this.state = kind.isLazy
      ? StripeState.create(flags, { queues: kind.queues, buffers: kind.fetchBuffers })
      : undefined;
    const statistics = Array.from(
      { length: kind.queues },
      () => new SharedArrayBuffer(QueueStatistics.sharedBytes(kind.slots)),
    );
    this.#statistics = statistics.map((shared) => new QueueStatistics(shared, kind.slots));
    const limits = TokenBuckets.share(kind.queues + 1);
    this.#buckets = new TokenBuckets(limits, kind.queues);
    this.#shared = {
      size: this.size.shared,
      flush: new SharedArrayBuffer(FlushGroup.sharedBytes(kind.queues + (kind.isLazy ? 1 : 0))),
      subBlockLock: new SharedArrayBuffer(4),
      limits,
      statistics,
      waits: statistics.map(() => new SharedArrayBuffer(SlotWaits.sharedBytes(kind.slots))),
    };
    this.disk = this.#describe(this.state === undefined ? undefined : this.#stripes(this.state));
    const memoryTable = new SharedArrayBuffer(MemoryTables.sharedBytes);
    this.memory = new MemoryMap(memoryTable);
    const letters = this.#queueWakeFds.map((fd) => ({
      shared: new SharedArrayBuffer(QueueMailbox.sharedBytes),
      fd,
    }));
    this.#letters = letters.map(({ shared, fd }) => new QueueMailbox(shared, fd));
    this.mailboxes = this.#letters.map((letter) => this.#mailbox(letter));
    for (const [queue, { shared }] of letters.entries()) {
      this.#startQueue(queue, shared, memoryTable);
    }
    if (this.disk.stripes !== undefined) {
      this.#startStripes(this.disk.stripes, this.disk);
    }
  }

  /** Threads that something was brought to. */
  ready(): readonly { readonly turn: () => void }[] {
    return this.#threads
      .filter(({ isEnded, engine }) => !isEnded && (!engine.isAsleep || engine.isReady()))
      .map((thread) => ({
        turn: () => {
          thread.engine.isAsleep = false;
          thread.isEnded = !thread.turn();
        },
      }));
  }

  /** The queue leaves its ring alone. */
  isBroken(queue: number): boolean {
    return this.#letters[queue]?.ringState() === RingState.broken;
  }

  /** A queue has something for the control thread. */
  takeControlWake(): boolean {
    return drainEvent(this.#controlWakeFd) === 1;
  }

  limit(iops: number | undefined): void {
    const settings = Array.from({ length: 6 }, (_, i) => ({
      perSecond: i === 0 ? iops : undefined,
      burst: undefined,
    }));
    this.#buckets.set(settings, this.#parts.time.nowNs);
  }

  /** Something that an operator asks for. */
  operate(random: SeededRandom): void {
    const { control } = this;
    random.pick([
      () => control.askToPause(),
      () => control.askToResume(),
      () => control.askToRetry(),
      () => {
        control.limit = random.pick([1_000_000, Number.POSITIVE_INFINITY]);
      },
    ])();
    this.#wakeStripes();
  }

  /** What an operator does when all is well again. */
  calm(): void {
    this.control.limit = Number.POSITIVE_INFINITY;
    this.control.askToResume();
    this.control.askToRetry();
    this.#wakeStripes();
  }

  /** As the control thread does. */
  beginSync(): () => boolean {
    const { base, faults, wait, pass } = this.#parts;
    const members = { disk: this.disk, shared: this.#shared, wakeFds: this.#queueWakeFds };
    return beginSync(members, Number.POSITIVE_INFINITY, {
      pause: wait,
      sync: () => {
        const point = base.syncPoint();
        pass();
        const result = faults.sync();
        if (result < 0) {
          base.syncFailed(point);
        } else {
          base.synced(point);
        }
        return result === 0;
      },
    });
  }

  /** Ends all threads as a stop does. False when what was written could not be made durable. */
  stop(): boolean {
    for (const mailbox of this.mailboxes) {
      mailbox.command(QueueCommand.exit, [], 0);
    }
    const isFlushed = this.beginSync()();
    this.control.askToStop();
    this.#wakeStripes();
    while (this.#threads.some(({ isEnded }) => !isEnded)) {
      this.#parts.wait();
    }
    this.#expectNothingLeft();
    for (const worker of this.#workers) {
      worker[Symbol.dispose]();
    }
    if (this.#source instanceof RawSource && !this.isSourceClosed) {
      this.#source[Symbol.dispose](); // with reads under way
    }
    this.#release(false);
    return isFlushed;
  }

  /** A sync failed, which the kernel tells once, and no flush has been told: whoever dies now takes that along. */
  get hasUntold(): boolean {
    const { base } = this.#parts;
    const isUnread = this.#engines.some((engine) => engine.hasFailedSync(base));
    return isUnread || FlushGroup.hasUntold(this.#shared.flush);
  }

  /** From here on nothing of it happens; its memory and descriptors are gone. */
  die(): void {
    for (const engine of this.#engines) {
      engine.die();
    }
    this.#release(true);
  }

  /** @throws Error when something is under way or taken that belongs to no request */
  expectIdle(): void {
    for (const [queue, statistics] of this.#statistics.entries()) {
      const left = statistics.counter(Counter.inFlight);
      if (left !== 0) {
        throw new Error(`queue ${queue} has ${left} requests that nobody waits for`);
      }
    }
    for (let buffer = 0; buffer < this.#buffers.count; buffer++) {
      if (this.state?.isPinned(buffer) === true) {
        throw new Error(`fetch buffer ${buffer} is pinned by nobody`);
      }
    }
  }

  /** For a message. */
  describe(): string {
    const loads = this.#threads.map(({ name, engine }) => `${name} has ${engine.load} under way`);
    return loads.join(", ");
  }

  // --- internal: parts ---

  #openEngine(requestsMax: number, file: EngineFile): SimEngine {
    const { time, random, base, metadata, image, faults, sourceFaults } = this.#parts;
    const isImage = file.fd === IMAGE_FD;
    const disk = isImage ? image : file.fd === METADATA_FD ? metadata : base;
    if (disk === undefined) {
      throw new Error(`no file has number ${file.fd}`);
    }
    const engine = new SimEngine({
      time,
      disk,
      faults: isImage ? sourceFaults : faults,
      random,
      requestsMax,
      file,
    });
    this.#engines.push(engine);
    return engine;
  }

  #describe(stripes: StripeDescription | undefined): DiskDescription {
    const { kind, sectors } = this.#parts;
    return {
      fd: BASE_FD,
      sectors,
      blockBytes: SECTOR,
      physicalBlockBytes: 4096,
      optimalIoBytes: 0,
      isDirect: true,
      memoryAlignBytes: 512,
      discardUnitBytes: 4096,
      isReadOnly: false,
      isNull: false,
      isWriteThrough: kind.isWriteThrough,
      isDiscardOffered: kind.isDiscardOffered,
      cipherContext: kind.cipherContext,
      stripes,
    };
  }

  #stripes(state: StripeState): StripeDescription {
    const { kind, image } = this.#parts;
    this.#stripeWakeFd = createEvent();
    return {
      state: state.shared,
      stripeSectors: kind.stripeSectors,
      isWrittenTracked: kind.isWrittenTracked,
      isChangeTracked: false,
      isCopyOnRead: kind.isCopyOnRead || !kind.isImage,
      rings: this.#queueWakeFds.map(
        () => new SharedArrayBuffer(IntentRing.sharedBytes(kind.intents)),
      ),
      stripeWakeFd: this.#stripeWakeFd,
      image:
        image === undefined
          ? undefined
          : {
              fd: IMAGE_FD,
              sizeBytes: image.sectors * SECTOR,
              blockBytes: SECTOR,
              memoryAlignBytes: SECTOR,
            },
    };
  }

  /** The control thread waits for an answer while the others go on. */
  #mailbox(letter: QueueMailbox): RingMailbox {
    return {
      isBusy: () => letter.isBusy(),
      oldestTable: () => letter.oldestTable(),
      withdraw: () => -1,
      command: (command, values) => {
        letter.post(command, values);
        while (letter.isBusy()) {
          this.#parts.wait();
        }
        return letter.result;
      },
    };
  }

  #startQueue(queue: number, mailbox: SharedArrayBuffer, memoryTable: SharedArrayBuffer): void {
    const { kind } = this.#parts;
    const worker = new QueueWorker(
      {
        queue,
        queues: kind.queues,
        slots: kind.slots,
        segmentsPerSlot: 4,
        bufferLimitBytes: 2 ** 20,
        ioEngine: "io_uring",
        cpu: undefined,
        pollTimeoutUs: kind.pollTimeoutUs,
        deviceId: DEVICE_ID,
        disk: this.disk,
        shared: this.#shared,
        memoryTable,
        mailbox,
        pulse: new Heartbeat().add(`queue ${queue}`, -1),
        wakeFds: this.#queueWakeFds,
        controlWakeFd: this.#controlWakeFd,
      },
      this.#machine,
    );
    this.#addThread(`queue ${queue}`, worker, () => worker.turn());
  }

  #startStripes(stripes: StripeDescription, disk: DiskDescription): void {
    const { kind, flags, metadata, sectors } = this.#parts;
    this.#source = this.#openSource();
    const before = this.#engines.length;
    const worker = new StripeWorker(
      {
        stripes,
        control: this.control.shared,
        flags: sharedCopy(flags),
        disk: { fd: disk.fd, sectors, cipherContext: disk.cipherContext },
        metadataFd: METADATA_FD,
        metadataPath: `metadata of ${metadata.sectors} sectors`,
        source: undefined,
        buffers: this.#buffers,
        isAutofetch: kind.isBackground,
        prefetch: new Float64Array(0),
        recordPath: undefined,
        aheadMax: kind.isBackground ? 2 : 0,
        ioEngine: "io_uring",
        flush: this.#shared.flush,
        queueWakeFds: this.#queueWakeFds,
      },
      {
        machine: this.#machine,
        pulse: new Pulse(new Heartbeat().add("stripes", -1)),
        source: this.#source,
        tell: ({ kind: message }) => {
          this.isSourceClosed ||= message === "source-closed";
        },
      },
    );
    this.#addThread("stripes", worker, () => worker.turn(), before);
  }

  #openSource(): StripeSource {
    const { kind, archive, image, time, random, isSourceFault } = this.#parts;
    if (image !== undefined) {
      return new RawSource({
        engine: this.#openEngine(kind.fetchBuffers, { fd: IMAGE_FD, isWriteThrough: false }),
        sizeBytes: image.sectors * SECTOR,
        blockBytes: SECTOR,
        stripeBytes: kind.stripeSectors * SECTOR,
        requestsMax: kind.fetchBuffers,
      });
    }
    if (archive === undefined) {
      return NO_SOURCE;
    }
    const requestsMax = kind.fetchBuffers;
    return new SimArchiveSource({ archive, time, random, requestsMax, isFault: isSourceFault });
  }

  /** Its own engine is the first one that it opened. */
  #addThread(
    name: string,
    worker: Disposable,
    turn: () => boolean,
    engineIndex = this.#engines.length - 1,
  ): void {
    const engine = this.#engines[engineIndex];
    if (engine === undefined) {
      throw new Error(`${name} opened no engine`);
    }
    this.#workers.push(worker);
    this.#threads.push({ name, engine, turn, isEnded: false });
  }

  #wakeStripes(): void {
    if (this.#stripeWakeFd >= 0) {
      signalEvent(this.#stripeWakeFd);
    }
  }

  #expectNothingLeft(): void {
    this.expectIdle();
    for (const { name, engine } of this.#threads) {
      if (engine.load > 0) {
        throw new Error(`${name} ended with I/O under way`);
      }
    }
  }

  #release(isKilled: boolean): void {
    this.#machine.die(isKilled);
    if (this.#source instanceof SimArchiveSource) {
      this.#source.die();
    }
    if (!this.isSourceClosed) {
      unmap(this.#buffers.address, this.#buffers.count * this.#buffers.bytesEach);
    }
    this.memory.replace([], []);
    this.memory.unmapRetired(this.memory.table);
    for (const fd of [...this.#queueWakeFds, this.#controlWakeFd, this.#stripeWakeFd]) {
      if (fd >= 0) {
        closeDescriptor(fd);
      }
    }
  }
}
