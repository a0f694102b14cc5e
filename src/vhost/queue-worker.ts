/**
 * The thread of one virtqueue: takes chains, has them carried out, publishes their ends. All it waits
 * for (kick, disk completions, commands of the control worker) are completions of one ring, so it sleeps
 * in one system call and never polls without a bound.
 *
 *   turn:  command? -> take all chains -> submit (and wait) -> completions -> publish once, call once
 *
 * Kicks are asked for only before a sleep; then the ring is looked at once more (2.7.10).
 * Cost: about 250 ns a request besides cipher and kernel; two system calls a batch; no allocation.
 */
import { openDiskRequests } from "../device/disk-requests.ts";
import { DiskSize } from "../device/disk-size.ts";
import { Pulse } from "../device/heartbeat.ts";
import { Counter, QueueStatistics } from "../device/queue-statistics.ts";
import { QueueThrottle } from "../device/queue-throttle.ts";
import { WakeTimer } from "../device/wake-timer.ts";
import { type IoEngine, WATCH_ID } from "../disk/io-engine.ts";
import { openEngine } from "../disk/open-engine.ts";
import type { RequestRunner } from "../disk/request-executor.ts";
import { Operation, Outcome, RequestTable } from "../disk/request-table.ts";
import { clockNs, drainEvent, signalEventAsking, threadCpuNs } from "../ffi/event.ts";
import { memoryFaults, store8 } from "../ffi/memory.ts";
import { nameThread, pinThread } from "../ffi/process.ts";
import { f64, i32, u32 } from "../ffi/view.ts";
import { DEVICE_ID_BYTES, REQUEST_TYPE, STATUS } from "../formats/virtio-blk.ts";
import { LogLimiter, log } from "../log.ts";
import { BlockChain } from "../virtio/block-chain.ts";
import { GuestMemory } from "../virtio/guest-memory.ts";
import { SplitRing } from "../virtio/split-ring.ts";
import { DeviceId } from "./device-id.ts";
import { GuestCall } from "./guest-call.ts";
import { IdleSpin } from "./idle-spin.ts";
import { QueueCommand, QueueMailbox, RingState } from "./queue-mailbox.ts";
import type { QueueWorkerData } from "./queue-worker-data.ts";
import { operationOf, TO_DISK, verdictOf } from "./request-policy.ts";

/** Runs the worker of this thread until it is told to exit. */
export function runQueueWorker(data: QueueWorkerData): void {
  nameThread(`vhost-queue-${data.queue}`);
  if (data.cpu !== undefined) {
    const result = pinThread(data.cpu);
    if (result < 0) {
      log.warn("cannot pin the queue to its CPU", { queue: data.queue, cpu: data.cpu });
    }
  }
  using worker = new QueueWorker(data);
  postMessage("ready");
  Bun.gc(true); // what the start left behind: a turn allocates nothing, so nothing else would collect it
  while (worker.turn()) {
    // Everything happens in a turn.
  }
}

const WAKE_ID = WATCH_ID;
const FIRST_KICK_ID = WATCH_ID + 1;
const LAST_KICK_ID = 0x7fff_0000;
const IMAGE_ID = LAST_KICK_ID + 1;
const TIMER_ID = LAST_KICK_ID + 2;
const LOOKS_PER_CLOCK = 32;
/** So many answers are published though more chains wait: the guest can go on meanwhile. */
const EARLY_ANSWERS = 8;
const MEMORY_LOST = "the front end cut off its shared memory";

class QueueWorker implements Disposable {
  readonly #queue: number;
  readonly #disk: {
    sectors: number;
    readonly isReadOnly: boolean;
    readonly isDiscardOffered: boolean;
  };
  readonly #size: DiskSize;
  readonly #engine: IoEngine;
  readonly #requests: RequestTable;
  readonly #executor: RequestRunner;
  readonly #memory = new GuestMemory();
  readonly #memoryTable: Float64Array;
  readonly #chain = new BlockChain(this.#memory);
  readonly #deviceId: DeviceId;
  readonly #mailbox: QueueMailbox;
  readonly #statistics: QueueStatistics;
  readonly #pulse: Pulse;
  readonly #throttle: QueueThrottle;
  readonly #timer = new WakeTimer();
  readonly #limiter = new LogLimiter();
  /** Waiting for the guest alone, and for the disk as well: their gaps have nothing in common. */
  readonly #guestSpin: IdleSpin;
  readonly #diskSpin: IdleSpin;
  // Columns by slot, beside those of the request table:
  readonly #head: Uint16Array;
  readonly #statusAddress: Float64Array;

  #ring: SplitRing | undefined;
  #kickId = FIRST_KICK_ID;
  #kickFd = -1;
  readonly #guestCall = new GuestCall();
  #errorFd = -1;
  /** Used elements pushed since the last publish. */
  #pushed = 0;
  /** Chains wait for a free slot, or for the limits of the disk. */
  #isStarved = false;
  #isBroken = false;
  #isExiting = false;
  #faultsAtLoad = 0;
  #nowNs = 0;

  constructor(data: QueueWorkerData) {
    const { disk, shared, queue } = data;
    this.#queue = queue;
    const { sectors, isReadOnly, isDiscardOffered } = disk;
    this.#disk = { sectors, isReadOnly, isDiscardOffered };
    this.#size = new DiskSize(shared.size);
    this.#requests = new RequestTable(data.slots, data.segmentsPerSlot);
    this.#engine = openEngine(data.ioEngine, data.slots, disk);
    this.#executor = openDiskRequests({
      disk,
      shared,
      queue,
      wakeFds: data.wakeFds.slice(0, data.queues),
      requests: this.#requests,
      engine: this.#engine,
      ioEngine: data.ioEngine,
      bufferLimitBytes: data.bufferLimitBytes,
      imageWatchId: IMAGE_ID,
    });
    this.#memoryTable = new Float64Array(data.memoryTable);
    this.#deviceId = new DeviceId(data.deviceId);
    this.#mailbox = new QueueMailbox(data.mailbox, data.wakeFds[queue] ?? -1);
    this.#pulse = new Pulse(data.pulse);
    this.#statistics = new QueueStatistics(
      shared.statistics[queue] ?? new SharedArrayBuffer(0),
      data.slots,
    );
    this.#throttle = new QueueThrottle(shared.limits, queue, this.#statistics);
    this.#guestSpin = new IdleSpin("guest", data.pollTimeoutUs);
    this.#diskSpin = new IdleSpin("disk", data.pollTimeoutUs);
    this.#head = new Uint16Array(data.slots);
    this.#statusAddress = new Float64Array(data.slots);
    this.#engine.watch(WAKE_ID, this.#mailbox.wakeFd);
    this.#engine.watch(TIMER_ID, this.#timer.fd);
  }

  /** One turn of the loop. False when the worker is to end. */
  turn(): boolean {
    if (this.#mailbox.pending() !== 0) {
      this.#obey();
      if (this.#isExiting) {
        return false;
      }
    }
    const ring = this.#ring;
    const isTaking = ring !== undefined && this.#mailbox.pending() === 0;
    const taken = isTaking ? this.#takeAll(ring) : 0;
    this.#executor.flushBatch();
    const isIdle = taken === 0 && this.#executor.finishedCount === 0 && this.#pushed === 0;
    if (isIdle) {
      this.#rest(isTaking ? ring : undefined);
    } else if (this.#engine.hasWork()) {
      this.#engine.submit(0);
    }
    this.#complete();
    this.#publish();
    return true;
  }

  [Symbol.dispose](): void {
    this.#engine[Symbol.dispose]();
    this.#executor[Symbol.dispose]();
    this.#timer[Symbol.dispose]();
  }

  // --- internal: commands ---

  #obey(): void {
    const mailbox = this.#mailbox;
    switch (mailbox.pending()) {
      case QueueCommand.start:
        this.#start();
        mailbox.answer(0);
        return;
      case QueueCommand.setCall:
        this.#guestCall.set(mailbox.argument(0), mailbox.argument(1) === 1);
        if (this.#ring !== undefined) {
          this.#call(); // what was published before may have had nobody to tell
        }
        mailbox.answer(0);
        return;
      default:
        if (this.#requests.inFlight > 0) {
          return; // the others wait for the last request; no new ones are taken meanwhile
        }
        this.#obeyIdle();
    }
  }

  /** Commands that wait until no request is under way. */
  #obeyIdle(): void {
    const mailbox = this.#mailbox;
    switch (mailbox.pending()) {
      case QueueCommand.stop:
        mailbox.answer(this.#stop());
        return;
      case QueueCommand.reloadMemory:
        this.#memory.load(this.#memoryTable);
        this.#faultsAtLoad = memoryFaults();
        mailbox.answer(0);
        return;
      case QueueCommand.setWriteThrough:
        this.#executor.setWriteThrough(mailbox.argument(0) === 1);
        mailbox.answer(0);
        return;
      default:
        this.#isExiting = true;
        mailbox.answer(0);
    }
  }

  #start(): void {
    const mailbox = this.#mailbox;
    const areas = {
      entries: mailbox.argument(0),
      descriptors: mailbox.argument(1),
      available: mailbox.argument(2),
      used: mailbox.argument(3),
    };
    this.#ring = new SplitRing(areas, mailbox.argument(4), mailbox.argument(5) === 1);
    this.#executor.setWriteThrough(mailbox.argument(6) === 1);
    this.#kickFd = mailbox.argument(7);
    this.#guestCall.set(mailbox.argument(8), mailbox.argument(9) === 1);
    this.#errorFd = mailbox.argument(10);
    this.#isBroken = false;
    this.#isStarved = false;
    mailbox.setRingState(RingState.running);
    this.#kickId = this.#kickId === LAST_KICK_ID ? FIRST_KICK_ID : this.#kickId + 1;
    this.#engine.watch(this.#kickId, this.#kickFd);
  }

  #stop(): number {
    const next = this.#ring?.nextAvailable ?? 0;
    if (this.#ring !== undefined) {
      this.#engine.unwatch(this.#kickId);
      drainEvent(this.#kickFd);
      this.#throttle.cancel(clockNs());
    }
    this.#ring = undefined;
    this.#kickFd = -1;
    this.#guestCall.set(-1, false);
    this.#errorFd = -1;
    this.#mailbox.setRingState(RingState.stopped);
    return next;
  }

  // --- internal: taking chains ---

  #takeAll(ring: SplitRing): number {
    if (this.#isBroken) {
      return 0;
    }
    const waiting = ring.waiting();
    if (waiting === 0) {
      return 0;
    }
    if (waiting > ring.entries) {
      this.#break(ring, "the available index jumped by more than the ring holds");
      return 0;
    }
    if (this.#isMemoryLost()) {
      this.#break(ring, MEMORY_LOST);
      return 0;
    }
    if (this.#size.hasGrown()) {
      this.#grow(); // behind the ring's index: whoever put these chains there may know of the new size
    }
    this.#nowNs = clockNs();
    if (!this.#throttle.mayGo(this.#nowNs)) {
      this.#isStarved = true;
      return 0;
    }
    ring.disableKicks();
    let taken = 0;
    while (taken < waiting && !this.#isBroken && this.#takeOne(ring)) {
      taken += 1;
      if (this.#executor.finishedCount >= EARLY_ANSWERS) {
        this.#publish();
      }
    }
    this.#isStarved = taken < waiting;
    this.#guestSpin.learnBatch(waiting);
    return taken;
  }

  #grow(): void {
    const { sectors } = this.#size;
    this.#disk.sectors = sectors;
    this.#executor.grow(sectors);
  }

  /** Takes the next chain; false when it has to wait, for a free slot or for its tokens. */
  #takeOne(ring: SplitRing): boolean {
    const head = ring.peek();
    const chain = this.#chain;
    const verdict = chain.read(ring, head)
      ? verdictOf(chain, this.#disk, this.#deviceId)
      : STATUS.IOERR;
    if (verdict !== TO_DISK) {
      ring.take();
      this.#answerAtOnce(ring, head, verdict);
      return true;
    }
    const operation = operationOf(chain.type);
    const throttle = this.#throttle;
    const mayStart = !throttle.isOn || throttle.mayStart(operation, chain.dataBytes, this.#nowNs);
    const slot = mayStart ? this.#requests.take(chain.dataCount) : -1;
    if (slot < 0) {
      return false;
    }
    ring.take();
    this.#admit(slot, head, operation);
    if (throttle.isOn) {
      throttle.started(operation, this.#executor.lists.bytes(slot), this.#nowNs);
    }
    return true;
  }

  #answerAtOnce(ring: SplitRing, head: number, status: number): void {
    const chain = this.#chain;
    const isId = chain.type === REQUEST_TYPE.GET_ID && status === STATUS.OK;
    let written = 0;
    if (chain.statusAddress !== 0) {
      store8(chain.statusAddress, status);
      written = (isId ? DEVICE_ID_BYTES : 0) + 1;
    }
    if (status === STATUS.IOERR) {
      this.#statistics.count(Counter.badChains, 1);
      this.#limiter.warn("refused a request of the guest", {
        queue: this.#queue,
        type: chain.type,
        sector: chain.sector,
        bytes: chain.dataBytes,
      });
    }
    ring.push(head, written);
    this.#pushed += 1;
  }

  #admit(slot: number, head: number, operation: number): void {
    const chain = this.#chain;
    const requests = this.#requests;
    const place = i32(requests.segmentStart, slot);
    for (let i = 0; i < chain.dataCount; i++) {
      requests.segmentAddress[place + i] = f64(chain.address, chain.dataStart + i);
      requests.segmentLength[place + i] = u32(chain.length, chain.dataStart + i);
    }
    requests.operation[slot] = operation;
    requests.sector[slot] = chain.sector;
    requests.bytes[slot] = chain.dataBytes;
    this.#head[slot] = head;
    this.#statusAddress[slot] = chain.statusAddress;
    this.#statistics.begin(slot, operation, chain.sector, chain.dataBytes, this.#nowNs);
    this.#executor.admit(slot);
  }

  // --- internal: waiting and completing ---

  /** Nothing to do: looks for work a short while where that pays, then sleeps. */
  #rest(ring: SplitRing | undefined): void {
    const startNs = clockNs();
    const spin = this.#requests.inFlight === 0 ? this.#guestSpin : this.#diskSpin;
    const limitNs = spin.limitNs();
    let nowNs = startNs;
    while (nowNs - startNs < limitNs) {
      for (let i = 0; i < LOOKS_PER_CLOCK; i++) {
        if (this.#hasNews(ring)) {
          spin.learn(clockNs() - startNs);
          this.#engine.submit(0);
          return;
        }
      }
      nowNs = clockNs();
    }
    this.#timer.set(this.#throttle.wakeNs(nowNs), nowNs);
    const isMeasured = spin.isMeasured();
    const cpuNs = isMeasured ? threadCpuNs() : 0;
    this.#engine.submit(this.#maySleep(ring) ? 1 : 0);
    if (isMeasured) {
      spin.learnSleep(threadCpuNs() - cpuNs);
    }
    spin.learn(clockNs() - startNs);
  }

  #hasNews(ring: SplitRing | undefined): boolean {
    return (
      this.#engine.hasWork() ||
      // A command that waits for requests under way is no news, or a slow disk would keep this thread busy.
      (this.#mailbox.pending() !== 0 && this.#requests.inFlight === 0) ||
      (ring !== undefined && !this.#isBroken && !this.#isStarved && ring.waiting() !== 0)
    );
  }

  /** Asks for kicks; false when chains came in meanwhile. */
  #maySleep(ring: SplitRing | undefined): boolean {
    if (ring === undefined || this.#isBroken) {
      return true;
    }
    ring.enableKicks();
    // Chains that found no free slot wait for a completion, not for a kick.
    return this.#isStarved || ring.waiting() === 0;
  }

  #complete(): void {
    const engine = this.#engine;
    const count = engine.completions();
    for (let i = 0; i < count; i++) {
      const id = engine.completedId(i);
      if (id < WATCH_ID) {
        this.#executor.complete(id, engine.completedResult(i));
      } else if (id === WAKE_ID) {
        drainEvent(this.#mailbox.wakeFd);
        this.#pulse.answer();
      } else if (id === TIMER_ID) {
        this.#timer.fired();
      } else if (id !== IMAGE_ID && engine.completedResult(i) > 0) {
        this.#statistics.count(Counter.kicks, 1);
      }
    }
    if (count > 0) {
      engine.release(count);
    }
  }

  #publish(): void {
    const ring = this.#ring;
    const executor = this.#executor;
    const finished = executor.finishedCount;
    if (ring === undefined || finished + this.#pushed === 0) {
      return;
    }
    if (finished > 0) {
      const nowNs = clockNs();
      const isLost = this.#isMemoryLost();
      for (let i = 0; i < finished; i++) {
        this.#end(ring, i32(executor.finished, i), nowNs, isLost);
      }
      executor.finishedCount = 0;
      if (isLost && !this.#isBroken) {
        this.#break(ring, MEMORY_LOST);
      }
    }
    this.#pushed = 0;
    ring.disableKicks(); // what the driver adds in answer is looked for before the next sleep
    if (ring.publish()) {
      this.#call();
    }
  }

  /** What was moved while memory was cut off may have come from or gone to the pages that cover the hole. */
  #isMemoryLost(): boolean {
    return memoryFaults() !== this.#faultsAtLoad;
  }

  #end(ring: SplitRing, slot: number, nowNs: number, isLost: boolean): void {
    const requests = this.#requests;
    const outcome = isLost ? Outcome.ioError : (requests.outcome[slot] ?? Outcome.ioError);
    const statusAddress = f64(this.#statusAddress, slot);
    let written = 0;
    if (statusAddress !== 0) {
      store8(statusAddress, outcome);
      written = 1;
    }
    if (requests.operation[slot] === Operation.read && outcome === Outcome.ok) {
      written += f64(requests.bytes, slot);
    }
    this.#statistics.end(slot, outcome === Outcome.ok, nowNs);
    ring.push(this.#head[slot] ?? 0, written);
    requests.give(slot);
  }

  #call(): void {
    if (this.#guestCall.signal()) {
      this.#statistics.count(Counter.calls, 1);
    }
  }

  /** The guest broke the rules of the ring: it is left alone until it is set up anew. */
  #break(ring: SplitRing, why: string): void {
    this.#isBroken = true;
    this.#throttle.cancel(clockNs()); // or it would wake this thread again and again
    this.#mailbox.setRingState(RingState.broken);
    this.#limiter.warn("queue stopped", { queue: this.#queue, why, next: ring.nextAvailable });
    if (this.#errorFd >= 0) {
      signalEventAsking(this.#errorFd);
    }
  }
}
