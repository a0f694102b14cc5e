/**
 * One front end's connection, from its first message to its last: the state that the protocol builds up
 * and what each request does to it. Transport and threads are others' business.
 *
 * A mistake of the front end is an UbiError: the connection is dropped, the next front end is served.
 */

import type { DiskDescription } from "../device/disk-device.ts";
import { UbiError } from "../errors.ts";
import {
  bitMask,
  decodeConfigPart,
  decodeLogArea,
  decodeMemoryRegion,
  decodeMemoryTable,
  decodeU64,
  decodeVringAddress,
  decodeVringState,
  encodeConfigPart,
  encodeU64,
  encodeVringState,
  hasBit,
  MEMORY_SLOTS_MAX,
  PROTOCOL_FEATURE,
  REQUEST,
  requestName,
  VRING_INDEX_MASK,
  VRING_NO_DESCRIPTOR,
} from "../formats/vhost-user.ts";
import { CONFIG_BYTES, CONFIG_WRITEBACK_OFFSET, FEATURE } from "../formats/virtio-blk.ts";
import { type LogLimiter, log } from "../log.ts";
import { BackChannel } from "./back-channel.ts";
import { DirtyLogMap } from "./dirty-log-map.ts";
import {
  type AnnouncedLimits,
  configOffset,
  deviceConfig,
  deviceFeatures,
  PROTOCOL_FEATURES,
} from "./features.ts";
import { InflightKeeper } from "./inflight-memory.ts";
import type { MemoryMap } from "./memory-map.ts";
import { oneDescriptor, takeDescriptor } from "./message-descriptors.ts";
import type { RingEnds } from "./ring-ends.ts";
import { type RingMailbox, Vring } from "./vring.ts";
import type { WriteCache } from "./write-cache.ts";

export interface SessionOptions {
  readonly disk: DiskDescription;
  /** Sectors of the disk, now. */
  readonly sectors: () => number;
  readonly limits: AnnouncedLimits;
  readonly memory: MemoryMap;
  readonly mailboxes: readonly RingMailbox[];
  /** What it returns makes durable what was written by then; false when the disk cannot, or could not since. */
  readonly beginSync: () => () => boolean;
  readonly cache: WriteCache;
  /** Where the rings of this process stopped last. */
  readonly ringEnds: RingEnds;
  /** For lines that the guest can cause as often as it likes. */
  readonly limiter: LogLimiter;
}

export class Session {
  readonly inflight: InflightKeeper;
  readonly #disk: DiskDescription;
  readonly #sectors: () => number;
  readonly #limits: AnnouncedLimits;
  readonly #memory: MemoryMap;
  readonly #rings: readonly Vring[];
  readonly #offered: bigint;
  readonly #beginSync: () => () => boolean;
  readonly #dirtyLog = new DirtyLogMap();
  #features = 0n;
  #protocolFeatures = 0n;
  #isOwned = false;
  readonly #cache: WriteCache;
  readonly #limiter: LogLimiter;
  /** Until when the queues must have ended their requests, once the session ends. */
  #deadlineMs = Number.POSITIVE_INFINITY;
  #status = 0n;
  #backChannel: BackChannel | undefined;

  constructor(options: SessionOptions) {
    this.#disk = options.disk;
    this.#sectors = options.sectors;
    this.#limits = options.limits;
    this.#memory = options.memory;
    this.#beginSync = options.beginSync;
    this.#offered = deviceFeatures(options.disk);
    this.#cache = options.cache;
    this.#limiter = options.limiter;
    const context = {
      memory: options.memory,
      dirtyLog: this.#dirtyLog,
      isLogging: () => hasBit(this.#features, FEATURE.LOG_ALL),
      hasEventIndex: () => hasBit(this.#features, FEATURE.RING_EVENT_IDX),
      isPacked: () => hasBit(this.#features, FEATURE.RING_PACKED),
      isWriteThrough: () => this.#isWriteThrough(),
      notesOf: (ring: number) => this.inflight.notesOf(ring),
      forgetNotes: (ring: number) => this.inflight.forget(ring),
      ends: options.ringEnds,
      timeLeftMs: () => this.#deadlineMs - performance.now(),
      limiter: options.limiter,
    };
    this.#rings = options.mailboxes.map((mailbox, i) => new Vring(i, mailbox, context));
    this.inflight = new InflightKeeper({
      rings: this.#rings,
      isNegotiated: () => hasBit(this.#protocolFeatures, PROTOCOL_FEATURE.INFLIGHT_SHMFD),
      isPacked: context.isPacked,
      cache: options.cache,
      limiter: options.limiter,
    });
  }

  /** Whether a request that asks for it gets an acknowledgement. */
  get hasReplyAck(): boolean {
    return hasBit(this.#protocolFeatures, PROTOCOL_FEATURE.REPLY_ACK);
  }

  /** Where the front end can be asked something; undefined when it offered no channel. */
  get backChannel(): BackChannel | undefined {
    return this.#backChannel;
  }

  closeBackChannel(): void {
    this.#backChannel?.[Symbol.dispose]();
    this.#backChannel = undefined;
  }

  /**
   * Carries a request out. `descriptors` came with it; those it takes are removed from the list, the
   * caller closes the rest.
   * @returns the payload of the reply, or undefined for a request without one
   * @throws UbiError when the front end made a mistake or the request failed
   */
  handle(request: number, payload: Uint8Array, descriptors: number[]): Uint8Array | undefined {
    switch (request) {
      case REQUEST.GET_FEATURES:
        return encodeU64(this.#offered);
      case REQUEST.SET_FEATURES:
        return this.#setFeatures(decodeU64(payload));
      case REQUEST.GET_PROTOCOL_FEATURES:
        return encodeU64(PROTOCOL_FEATURES);
      case REQUEST.SET_PROTOCOL_FEATURES:
        return this.#setProtocolFeatures(decodeU64(payload));
      case REQUEST.SET_OWNER:
        return this.#setOwner();
      case REQUEST.RESET_OWNER:
        this.#isOwned = false;
        return this.#resetDevice();
      case REQUEST.RESET_DEVICE:
        return this.#resetDevice();
      case REQUEST.GET_QUEUE_NUM:
        return encodeU64(BigInt(this.#limits.numQueues));
      case REQUEST.GET_CONFIG:
        return this.#getConfig(payload);
      case REQUEST.SET_CONFIG:
        return this.#setConfig(payload);
      case REQUEST.GET_STATUS:
        return encodeU64(this.#status);
      case REQUEST.SET_STATUS:
        return this.#setStatus(decodeU64(payload));
      case REQUEST.SET_BACKEND_REQ_FD:
        return this.#setBackChannel(descriptors);
      case REQUEST.GET_INFLIGHT_FD:
      case REQUEST.SET_INFLIGHT_FD:
        return this.inflight.handle(request, payload, descriptors);
      default:
        return this.#handleMemory(request, payload, descriptors);
    }
  }

  /** Ends all requests and takes no new ones, until `resume`. False, and all as before, when they do not end in time. */
  rest(timeoutMs: number): boolean {
    const deadlineMs = performance.now() + timeoutMs;
    const areResting = this.#rings.every((ring) =>
      ring.rest(Math.max(0, deadlineMs - performance.now())),
    );
    if (!areResting) {
      this.resume();
    }
    return areResting;
  }

  /** A ring waits for the driver to begin anew: no other process would know that. */
  get hasRingLeftAlone(): boolean {
    return this.#rings.some((ring) => ring.isLeftAlone);
  }

  resume(): void {
    for (const ring of this.#rings) {
      ring.settleIfMapped();
    }
  }

  /**
   * Stops all rings and lets go of the front end's memory. All queues together have `timeoutMs`.
   * @throws UbiError E_DISK_IO when a queue does not end its requests: the memory stays mapped then
   */
  end(timeoutMs: number): void {
    this.#deadlineMs = performance.now() + timeoutMs;
    this.closeBackChannel();
    let failure: unknown;
    for (const ring of this.#rings) {
      try {
        ring.reset();
      } catch (error) {
        failure ??= error; // the other rings must not run on without their front end
      }
    }
    if (failure !== undefined) {
      throw failure;
    }
    this.inflight[Symbol.dispose]();
    this.releaseMemory(); // or what was taken away under requests may leave no room
    this.#memory.replace([], []);
    this.#reloadMemory();
    for (const ring of this.#rings) {
      ring.forgetLog();
    }
    this.#dirtyLog[Symbol.dispose]();
  }

  /** Unmaps what the front end took back and no request uses any more. */
  releaseMemory(): void {
    const tables = this.#rings.map(({ oldestTable }) => oldestTable);
    this.#memory.unmapRetired(Math.min(this.#memory.table, ...tables));
  }

  // --- internal ---

  #handleMemory(
    request: number,
    payload: Uint8Array,
    descriptors: number[],
  ): Uint8Array | undefined {
    switch (request) {
      case REQUEST.SET_MEM_TABLE: {
        const regions = decodeMemoryTable(payload);
        if (regions.length !== descriptors.length) {
          const counts = `${regions.length} regions with ${descriptors.length} descriptors`;
          throw new UbiError("E_PROTOCOL", `SET_MEM_TABLE: ${counts}`);
        }
        return this.#changeMemory(() => this.#memory.replace(regions, descriptors));
      }
      case REQUEST.GET_MAX_MEM_SLOTS:
        return encodeU64(BigInt(MEMORY_SLOTS_MAX));
      case REQUEST.ADD_MEM_REG: {
        const region = decodeMemoryRegion(payload);
        return this.#changeMemory(() =>
          this.#memory.add(region, oneDescriptor(request, descriptors)),
        );
      }
      case REQUEST.REM_MEM_REG: {
        const region = decodeMemoryRegion(payload);
        return this.#changeMemory(() => this.#memory.remove(region));
      }
      case REQUEST.SET_LOG_BASE:
        return this.#setLogBase(payload, descriptors);
      case REQUEST.SET_LOG_FD:
        this.#dirtyLog.setEvent(takeDescriptor(request, descriptors));
        return this.#followLog();
      default:
        return this.#handleRing(request, payload, descriptors);
    }
  }

  #handleRing(request: number, payload: Uint8Array, descriptors: number[]): Uint8Array | undefined {
    switch (request) {
      case REQUEST.SET_VRING_NUM: {
        const { index, value } = decodeVringState(payload);
        this.#ring(index).setEntries(value);
        return undefined;
      }
      case REQUEST.SET_VRING_ADDR: {
        const address = decodeVringAddress(payload);
        this.#ring(address.index).setAddress(address);
        return undefined;
      }
      case REQUEST.SET_VRING_BASE: {
        const { index, value } = decodeVringState(payload);
        this.#ring(index).setBase(value);
        return undefined;
      }
      case REQUEST.GET_VRING_BASE: {
        const { index } = decodeVringState(payload);
        return encodeVringState({ index, value: this.#ring(index).takeBase() });
      }
      case REQUEST.SET_VRING_ENABLE: {
        const { index, value } = decodeVringState(payload);
        this.#ring(index).setEnabled(value !== 0);
        return undefined;
      }
      case REQUEST.SET_VRING_KICK:
      case REQUEST.SET_VRING_CALL:
      case REQUEST.SET_VRING_ERR:
        return this.#setDescriptor(request, decodeU64(payload), descriptors);
      default:
        throw new UbiError("E_PROTOCOL", `${requestName(request)} was not negotiated`);
    }
  }

  #setDescriptor(request: number, payload: bigint, descriptors: number[]): undefined {
    const value = Number(payload & 0xffff_ffffn);
    const ring = this.#ring(value & VRING_INDEX_MASK);
    const hasNone = (value & VRING_NO_DESCRIPTOR) !== 0;
    if (request === REQUEST.SET_VRING_KICK) {
      if (hasNone) {
        throw new UbiError(
          "E_PROTOCOL",
          `ring ${ring.index}: polling without a kick descriptor is not offered`,
        );
      }
      ring.setKick(takeDescriptor(request, descriptors));
      if (!hasBit(this.#features, FEATURE.VHOST_USER_PROTOCOL_FEATURES)) {
        ring.setEnabled(true); // without protocol features rings start enabled
      }
    } else if (request === REQUEST.SET_VRING_CALL) {
      ring.setCall(hasNone ? -1 : takeDescriptor(request, descriptors));
    } else {
      ring.setError(hasNone ? -1 : takeDescriptor(request, descriptors));
    }
    return undefined;
  }

  /** The last one counts. */
  #setBackChannel(descriptors: number[]): undefined {
    const request = REQUEST.SET_BACKEND_REQ_FD;
    if (!hasBit(this.#protocolFeatures, PROTOCOL_FEATURE.BACKEND_REQ)) {
      throw new UbiError("E_PROTOCOL", `${requestName(request)} was not negotiated`);
    }
    const channel = new BackChannel(oneDescriptor(request, descriptors));
    takeDescriptor(request, descriptors);
    this.closeBackChannel();
    this.#backChannel = channel;
    return undefined;
  }

  #setOwner(): undefined {
    if (this.#isOwned) {
      throw new UbiError("E_PROTOCOL", "SET_OWNER came twice");
    }
    this.#isOwned = true;
    return undefined;
  }

  #setFeatures(features: bigint): undefined {
    const unknown = features & ~this.#offered;
    if (unknown !== 0n) {
      throw new UbiError("E_PROTOCOL", `features 0x${unknown.toString(16)} were not offered`);
    }
    if ((this.#features ^ features) === bitMask(FEATURE.LOG_ALL)) {
      this.#features = features;
      return this.#followLog();
    }
    const running = this.#rings.filter((ring) => ring.isRunning);
    for (const ring of running) {
      ring.stop();
    }
    const isOtherLayout = hasBit(this.#features ^ features, FEATURE.RING_PACKED);
    this.#features = features;
    if (isOtherLayout) {
      for (const ring of this.#rings) {
        ring.forgetLayout();
      }
      this.inflight[Symbol.dispose](); // it has the layout of the other kind
    }
    for (const ring of running) {
      ring.settle();
    }
    log.debug("features", { word: `0x${features.toString(16)}` });
    return undefined;
  }

  #setProtocolFeatures(features: bigint): undefined {
    const unknown = features & ~PROTOCOL_FEATURES;
    if (unknown !== 0n) {
      const message = `protocol features 0x${unknown.toString(16)} were not offered`;
      throw new UbiError("E_PROTOCOL", message);
    }
    this.#protocolFeatures = features;
    return undefined;
  }

  /** A driver without FLUSH, or with the cache turned off, relies on every write being durable. */
  #isWriteThrough(): boolean {
    return !this.#cache.isWriteback || !hasBit(this.#features, FEATURE.BLK_FLUSH);
  }

  #getConfig(payload: Uint8Array): Uint8Array {
    const part = decodeConfigPart(payload);
    const config = deviceConfig(this.#disk, this.#sectors(), this.#limits, this.#cache.isWriteback);
    const offset = configOffset(part.offset);
    const bytes = new Uint8Array(part.bytes.length);
    bytes.set(config.subarray(Math.min(offset, CONFIG_BYTES), offset + bytes.length));
    return encodeConfigPart({ offset: part.offset, flags: part.flags, bytes });
  }

  /**
   * Only the writeback byte can be written, and a disk configured as write-through stays that. A driver
   * that turns the cache off sends no flush any more, so what was written before is made durable here. Whichever choice is
   * the safer one is noted for as long as the other may be in force: this process may die while a ring drains.
   */
  #setConfig(payload: Uint8Array): undefined {
    const part = decodeConfigPart(payload);
    const wanted = part.bytes[CONFIG_WRITEBACK_OFFSET - configOffset(part.offset)];
    if (wanted === undefined) {
      return undefined;
    }
    const wasWriteThrough = this.#isWriteThrough();
    const sync = this.#beginSync();
    this.#cache.isWriteback = wanted !== 0 && !this.#disk.isWriteThrough;
    if (!this.#cache.isWriteback) {
      this.inflight.noteCache();
    }
    for (const ring of this.#rings) {
      ring.setWriteThrough(this.#isWriteThrough());
    }
    this.inflight.noteCache();
    if (!wasWriteThrough && this.#isWriteThrough() && !sync()) {
      throw new UbiError("E_DISK_IO", "the disk cannot make durable what was written so far");
    }
    this.#limiter.info("the guest set the write cache", { writeback: this.#cache.isWriteback });
    return undefined;
  }

  #setStatus(status: bigint): undefined {
    this.#status = status & 0xffn;
    if (this.#status === 0n) {
      this.#resetDevice();
    }
    return undefined;
  }

  /** The write cache stays as the guest set it: a front end may tell it so for as long as it is connected. */
  #resetDevice(): undefined {
    for (const ring of this.#rings) {
      ring.reset();
      ring.forgetNotes();
    }
    this.#status = 0n;
    return undefined;
  }

  /**
   * Changes the table under running rings: requests under way go on by the old one, which keeps its memory
   * mapped for them. A ring whose own memory went rests until it comes back.
   */
  #changeMemory(change: () => void): undefined {
    change();
    for (const ring of this.#rings) {
      ring.leaveLostMemory();
    }
    this.#reloadMemory();
    for (const ring of this.#rings) {
      ring.settleIfMapped();
    }
    return undefined;
  }

  /** Always answered: a front end that waits for an acknowledgement takes the answer for one. */
  #setLogBase(payload: Uint8Array, descriptors: readonly number[]): Uint8Array {
    const request = REQUEST.SET_LOG_BASE;
    if (!hasBit(this.#protocolFeatures, PROTOCOL_FEATURE.LOG_SHMFD)) {
      throw new UbiError("E_PROTOCOL", `${requestName(request)} was not negotiated`);
    }
    const fd = oneDescriptor(request, descriptors);
    this.#dirtyLog.replace(decodeLogArea(payload), fd, this.#memory.guestEnd);
    this.#followLog();
    return encodeU64(0n);
  }

  /** The queues mark what they write in the log as it is now; the one before is let go. */
  #followLog(): undefined {
    for (const ring of this.#rings) {
      ring.followLog();
    }
    this.#dirtyLog.dropOld();
    return undefined;
  }

  #reloadMemory(): void {
    for (const ring of this.#rings) {
      ring.reloadMemory();
    }
    this.releaseMemory();
  }

  #ring(index: number): Vring {
    const ring = this.#rings[index];
    if (ring === undefined) {
      throw new UbiError(
        "E_PROTOCOL",
        `ring ${index} does not exist, there are ${this.#rings.length}`,
      );
    }
    return ring;
  }
}
