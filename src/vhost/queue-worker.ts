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
import type { Machine } from "../device/machine.ts";
import { Counter, QueueStatistics } from "../device/queue-statistics.ts";
import { QueueThrottle } from "../device/queue-throttle.ts";
import { WakeTimer } from "../device/wake-timer.ts";
import { type IoEngine, WATCH_ID } from "../disk/io-engine.ts";
import type { RequestRunner } from "../disk/request-executor.ts";
import { Outcome, RequestTable } from "../disk/request-table.ts";
import { drainEvent, signalEvent } from "../ffi/event.ts";
import { i32 } from "../ffi/view.ts";
import { STATUS } from "../formats/virtio-blk.ts";
import { LogLimiter } from "../log.ts";
import { BlockChain, NO_TICKET } from "../virtio/block-chain.ts";
import { DirtyLog } from "../virtio/dirty-log.ts";
import { GuestMemory } from "../virtio/guest-memory.ts";
import type { Ring } from "../virtio/ring.ts";
import { DeviceId } from "./device-id.ts";
import { GuestCall } from "./guest-call.ts";
import { GuestSlots } from "./guest-slots.ts";
import { IdleSpin } from "./idle-spin.ts";
import { MemoryTables } from "./memory-tables.ts";
import { QueueCommand, QueueMailbox, RingState, WITHDRAWN } from "./queue-mailbox.ts";
import type { QueueWorkerData } from "./queue-worker-data.ts";
import { operationOf, TO_DISK, verdictOf } from "./request-policy.ts";
import { startRing } from "./ring-start.ts";

const WAKE_ID = WATCH_ID;
const FIRST_KICK_ID = WATCH_ID + 1;
const LAST_KICK_ID = 0x7fff_0000;
const IMAGE_ID = LAST_KICK_ID + 1;
const TIMER_ID = LAST_KICK_ID + 2;
const LOOKS_PER_CLOCK = 32;
/** So many answers are published though more chains wait: the guest can go on meanwhile. */
const EARLY_ANSWERS = 8;
const MEMORY_LOST = "the front end cut off its shared memory";

export class QueueWorker implements Disposable {
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
  readonly #tables: MemoryTables;
  readonly #dirtyLog = new DirtyLog(MemoryTables.forMapped());
  readonly #chain = new BlockChain(this.#memory);
  readonly #deviceId: DeviceId;
  readonly #mailbox: QueueMailbox;
  readonly #controlWakeFd: number;
  readonly #statistics: QueueStatistics;
  readonly #pulse: Pulse;
  readonly #throttle: QueueThrottle;
  readonly #machine: Machine;
  readonly #timer: WakeTimer;
  readonly #limiter = new LogLimiter();
  /** Waiting for the guest alone, and for the disk as well: their gaps have nothing in common. */
  readonly #guestSpin: IdleSpin;
  readonly #diskSpin: IdleSpin;
  readonly #slots: GuestSlots;

  #ring: Ring | undefined;
  #kickId = FIRST_KICK_ID;
  #kickFd = -1;
  readonly #guestCall = new GuestCall();
  readonly #guestError = new GuestCall();
  /** Used elements pushed since the last publish. */
  #pushed = 0;
  /** Chains wait for a free slot, or for the limits of the disk. */
  #isStarved = false;
  #isBroken = false;
  #isExiting = false;
  #nowNs = 0;

  constructor(data: QueueWorkerData, machine: Machine) {
    const { disk, shared, queue } = data;
    this.#machine = machine;
    this.#timer = new WakeTimer(machine);
    this.#queue = queue;
    const { sectors, isReadOnly, isDiscardOffered } = disk;
    this.#disk = { sectors, isReadOnly, isDiscardOffered };
    this.#size = new DiskSize(shared.size);
    this.#requests = new RequestTable(data.slots, data.segmentsPerSlot);
    this.#engine = machine.openEngine(data.slots, disk);
    this.#executor = openDiskRequests({
      disk,
      shared,
      queue,
      wakeFds: data.wakeFds.slice(0, data.queues),
      requests: this.#requests,
      engine: this.#engine,
      machine,
      bufferLimitBytes: data.bufferLimitBytes,
      imageWatchId: IMAGE_ID,
    });
    this.#tables = new MemoryTables(data.memoryTable);
    this.#deviceId = new DeviceId(data.deviceId);
    this.#mailbox = new QueueMailbox(data.mailbox, data.wakeFds[queue] ?? -1);
    this.#controlWakeFd = data.controlWakeFd;
    this.#pulse = new Pulse(data.pulse);
    const statistics = shared.statistics[queue] ?? new SharedArrayBuffer(0);
    this.#statistics = new QueueStatistics(statistics, data.slots);
    this.#throttle = new QueueThrottle(shared.limits, queue, this.#statistics);
    this.#guestSpin = new IdleSpin("guest", data.pollTimeoutUs);
    this.#diskSpin = new IdleSpin("disk", data.pollTimeoutUs);
    this.#slots = new GuestSlots(this.#requests, this.#dirtyLog);
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
    const isDraining = this.#mailbox.pending() !== 0;
    const isTaking = ring !== undefined && (!isDraining || ring.againCount > 0);
    const taken = isTaking ? this.#takeAll(ring, isDraining) : 0;
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
        mailbox.answer(this.#start() ? 0 : 1);
        return;
      case QueueCommand.setCall:
        this.#guestCall.set(mailbox.argument(0), mailbox.argument(1) === 1);
        if (this.#ring !== undefined) {
          this.#call(); // what was published before may have had nobody to tell
        }
        mailbox.answer(0);
        return;
      case QueueCommand.setError:
        this.#guestError.set(mailbox.argument(0), true);
        if (this.#isBroken) {
          this.#guestError.signal(); // whoever asks late is told as well
        }
        mailbox.answer(0);
        return;
      case QueueCommand.reloadMemory:
        this.#reloadMemory(mailbox.argument(0), mailbox.argument(1));
        mailbox.answer(0);
        return;
      case QueueCommand.setLog:
        this.#dirtyLog.set(mailbox.logArguments());
        mailbox.answer(0);
        return;
      case QueueCommand.withdrawn:
        mailbox.answer(WITHDRAWN);
        return;
      default:
        if (this.#requests.inFlight > 0 || (!this.#isBroken && this.#ring?.againCount)) {
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
      case QueueCommand.setWriteThrough:
        this.#executor.setWriteThrough(mailbox.argument(0) === 1);
        mailbox.answer(0);
        return;
      case QueueCommand.withdrawn: // since it was looked at above
        mailbox.answer(WITHDRAWN);
        return;
      default:
        this.#isExiting = true;
        mailbox.answer(0);
    }
  }

  /** From here on chains are translated by the new table; requests under way go on by the one they were. */
  #reloadMemory(table: number, faults: number): void {
    this.#tables.loadInForce(this.#memory);
    this.#tables.loadMapped(this.#dirtyLog.regions);
    this.#slots.changeTable(table, faults);
    this.#mailbox.setOldestTable(this.#slots.oldestTable);
  }

  #start(): boolean {
    const mailbox = this.#mailbox;
    const { ring, fault } = startRing(mailbox, this.#dirtyLog, this.#limiter);
    this.#ring = ring;
    this.#executor.setWriteThrough(mailbox.argument(6) === 1);
    this.#kickFd = mailbox.argument(7);
    this.#guestCall.set(mailbox.argument(8), mailbox.argument(9) === 1);
    this.#guestError.set(mailbox.argument(10), true);
    this.#isBroken = false;
    this.#isStarved = false;
    this.#setState(RingState.running);
    this.#kickId = this.#kickId === LAST_KICK_ID ? FIRST_KICK_ID : this.#kickId + 1;
    this.#engine.watch(this.#kickId, this.#kickFd);
    if (!ring.isFresh) {
      this.#guestCall.signal(); // for what an earlier backend may have shown, and did not live to call for
    }
    if (fault !== undefined) {
      this.#break(ring, fault);
    }
    return fault === undefined;
  }

  #stop(): number {
    const next = this.#ring?.nextAvailable ?? 0;
    if (this.#ring !== undefined) {
      this.#engine.unwatch(this.#kickId);
      drainEvent(this.#kickFd);
      this.#throttle.cancel(this.#machine.clockNs());
    }
    this.#ring = undefined;
    this.#kickFd = -1;
    this.#guestCall.set(-1, false);
    this.#guestError.set(-1, false);
    this.#setState(RingState.stopped);
    return next;
  }

  // --- internal: taking chains ---

  #takeAll(ring: Ring, isDraining: boolean): number {
    if (this.#isBroken) {
      return 0;
    }
    let waiting = isDraining ? ring.againCount : ring.waiting();
    // Before all else: a ring on a page that was cut off looks empty for ever.
    if (this.#slots.isMemoryLost()) {
      this.#break(ring, MEMORY_LOST);
      return 0;
    }
    if (waiting === 0) {
      return 0;
    }
    if (waiting > ring.entries) {
      this.#break(ring, "the available index jumped by more than the ring holds");
      return 0;
    }
    if (this.#size.hasGrown()) {
      this.#grow(); // behind the ring's index: whoever put these chains there may know of the new size
    }
    this.#nowNs = this.#machine.clockNs();
    if (!this.#throttle.mayGo(this.#nowNs)) {
      this.#isStarved = true;
      return 0;
    }
    ring.disableKicks();
    this.#executor.beforeTaking();
    let taken = 0;
    while (taken < waiting && !this.#isBroken && this.#takeOne(ring)) {
      taken += 1;
      if (taken === waiting && !isDraining) {
        waiting += ring.waitingBehind(taken);
      }
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
  #takeOne(ring: Ring): boolean {
    const head = ring.peek();
    const chain = this.#chain;
    const verdict = chain.read(ring, head)
      ? verdictOf(chain, this.#disk, this.#deviceId)
      : STATUS.IOERR;
    const { ticket } = chain;
    if (ticket === NO_TICKET) {
      this.#break(ring, "a chain is longer than the free part of the ring");
      return false;
    }
    if (verdict !== TO_DISK) {
      this.#answerAtOnce(ring, ring.take(ticket), verdict);
      return true;
    }
    const operation = operationOf(chain.type);
    const throttle = this.#throttle;
    const isLimited = throttle.isOn && ring.againCount === 0; // what is done again has paid
    const mayStart = !isLimited || throttle.mayStart(operation, chain.dataBytes, this.#nowNs);
    const slot = mayStart ? this.#requests.take(chain.dataCount) : -1;
    if (slot < 0) {
      return false;
    }
    chain.ticket = ring.take(ticket);
    this.#admit(slot, operation);
    if (isLimited) {
      throttle.started(operation, this.#executor.lists.bytes(slot), this.#nowNs);
    }
    return true;
  }

  #answerAtOnce(ring: Ring, ticket: number, status: number): void {
    const chain = this.#chain;
    const written = this.#slots.answerChain(chain, status);
    if (status === STATUS.IOERR) {
      this.#statistics.count(Counter.badChains, 1);
      this.#limiter.warn("refused a request of the guest", {
        queue: this.#queue,
        type: chain.type,
        sector: chain.sector,
        bytes: chain.dataBytes,
      });
    }
    ring.push(ticket, written);
    this.#pushed += 1;
  }

  #admit(slot: number, operation: number): void {
    const chain = this.#chain;
    this.#slots.fill(slot, operation, chain);
    this.#statistics.begin(slot, operation, chain.sector, chain.dataBytes, this.#nowNs);
    this.#executor.admit(slot);
  }

  // --- internal: waiting and completing ---

  /** Nothing to do: looks for work a short while where that pays, then sleeps. */
  #rest(ring: Ring | undefined): void {
    const startNs = this.#machine.clockNs();
    const spin = this.#requests.inFlight === 0 ? this.#guestSpin : this.#diskSpin;
    const limitNs = spin.limitNs();
    let nowNs = startNs;
    while (nowNs - startNs < limitNs) {
      for (let i = 0; i < LOOKS_PER_CLOCK; i++) {
        if (this.#hasNews(ring)) {
          spin.learn(this.#machine.clockNs() - startNs);
          this.#engine.submit(0);
          return;
        }
      }
      nowNs = this.#machine.clockNs();
    }
    this.#timer.set(this.#throttle.wakeNs(nowNs), nowNs);
    const isMeasured = spin.isMeasured();
    const cpuNs = isMeasured ? this.#machine.threadCpuNs() : 0;
    this.#engine.submit(this.#maySleep(ring) ? 1 : 0);
    if (isMeasured) {
      spin.learnSleep(this.#machine.threadCpuNs() - cpuNs);
    }
    spin.learn(this.#machine.clockNs() - startNs);
  }

  #hasNews(ring: Ring | undefined): boolean {
    return (
      this.#engine.hasWork() ||
      // A command that waits for requests under way is no news, or a slow disk would keep this thread busy.
      (this.#mailbox.pending() !== 0 && this.#requests.inFlight === 0) ||
      (ring !== undefined && !this.#isBroken && !this.#isStarved && ring.waiting() !== 0)
    );
  }

  /** Asks for kicks; false when chains came in meanwhile. */
  #maySleep(ring: Ring | undefined): boolean {
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
      const nowNs = this.#machine.clockNs();
      const isLost = this.#slots.isMemoryLost();
      executor.beforeAnswers();
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
    const isCallWanted = ring.publish();
    executor.afterAnswers();
    if (isCallWanted) {
      this.#call();
    }
    if (this.#dirtyLog.isOn) {
      this.#dirtyLog.tell();
    }
  }

  #end(ring: Ring, slot: number, nowNs: number, isLost: boolean): void {
    const requests = this.#requests;
    const outcome = isLost ? Outcome.ioError : (requests.outcome[slot] ?? Outcome.ioError);
    const written = this.#slots.answer(slot, outcome);
    this.#statistics.end(slot, outcome === Outcome.ok, nowNs);
    ring.push(this.#slots.ticket(slot), written);
    if (this.#slots.hasOld && this.#slots.endOld(slot)) {
      this.#mailbox.setOldestTable(this.#slots.oldestTable);
      signalEvent(this.#controlWakeFd);
    }
    requests.give(slot);
  }

  #call(): void {
    if (this.#guestCall.signal()) {
      this.#statistics.count(Counter.calls, 1);
    }
  }

  #setState(state: number): void {
    this.#mailbox.setRingState(state);
    this.#statistics.setStopped(state === RingState.broken);
  }

  /** The guest broke the rules of the ring: it is left alone until it is set up anew. */
  #break(ring: Ring, why: string): void {
    this.#isBroken = true;
    this.#throttle.cancel(this.#machine.clockNs()); // or it would wake this thread again and again
    this.#setState(RingState.broken);
    const event = "queue stopped until the guest resets the disk";
    this.#limiter.warn(event, { queue: this.#queue, why, next: ring.nextAvailable });
    this.#guestError.signal();
  }
}
