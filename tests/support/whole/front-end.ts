/** The front end's side of a connection: sets a session up as a VMM does, and changes things while rings run. */
import { closeSync, openSync, readlinkSync } from "node:fs";
import { UbiError } from "../../../src/errors.ts";
import { createEvent, drainEvent, signalEvent } from "../../../src/ffi/event.ts";
import { closeDescriptor, MessageChannel } from "../../../src/ffi/socket.ts";
import {
  bitMask,
  decodeInflight,
  decodeVringState,
  encodeConfigPart,
  encodeInflight,
  encodeMemoryRegion,
  encodeMemoryTable,
  encodeU64,
  encodeVringAddress,
  encodeVringState,
  type Inflight,
  PROTOCOL_FEATURE,
  REQUEST,
} from "../../../src/formats/vhost-user.ts";
import { CONFIG_WRITEBACK_OFFSET, FEATURE } from "../../../src/formats/virtio-blk.ts";
import { LogLimiter } from "../../../src/log.ts";
import { Session } from "../../../src/vhost/session.ts";
import type { SeededRandom } from "../random.ts";
import { socketPair } from "../socket-pair.ts";
import type { Backend } from "./backend.ts";
import { type Guest, USER_BASE } from "./guest.ts";
import type { GuestQueue } from "./guest-queue.ts";

/** Of another memory, which the guest plugs and unplugs. */
const PLUGGED = {
  guestAddress: 0x9_0000_0000,
  sizeBytes: 0x1_0000,
  userAddress: 0x7f00_0000_0000,
  mmapOffset: 0,
};

export class FrontEnd {
  readonly #guest: Guest;
  readonly #random: SeededRandom;
  readonly #session: Session;
  readonly #channel: DescriptorChannel;
  /** Counts as the guest's own knowledge. */
  readonly #hasEventIndex: boolean;
  readonly #backend: Backend;
  readonly #inflight: InflightRegion | undefined;
  #isPlugged = false;
  /** By queue, what the backend was given last. */
  readonly #kickCopies: number[] = [];
  readonly #callCopies: number[] = [];

  constructor(options: {
    readonly guest: Guest;
    readonly backend: Backend;
    readonly random: SeededRandom;
    readonly channel: DescriptorChannel;
    readonly hasEventIndex: boolean;
    /** Where the queues note their requests under way; undefined when nobody keeps that. */
    readonly inflight: InflightRegion | undefined;
  }) {
    const { guest, backend, random } = options;
    this.#guest = guest;
    this.#random = random;
    this.#channel = options.channel;
    this.#hasEventIndex = options.hasEventIndex;
    this.#backend = backend;
    this.#inflight = options.inflight;
    this.#session = new Session({
      disk: backend.disk,
      sectors: () => backend.size.sectors,
      limits: { segSizeMax: 65_536, segCountMax: 8, numQueues: guest.queues.length },
      memory: backend.memory,
      mailboxes: backend.mailboxes,
      beginSync: () => backend.beginSync(),
      cache: backend.cache,
      ringEnds: backend.ringEnds,
      limiter: new LogLimiter(),
    });
  }

  /** As a VMM that knows the used rings only. */
  connect(): void {
    this.#send(REQUEST.SET_OWNER);
    const { CONFIG, REPLY_ACK, CONFIGURE_MEM_SLOTS, STATUS, RESET_DEVICE } = PROTOCOL_FEATURE;
    const always = bitMask(CONFIG, REPLY_ACK, CONFIGURE_MEM_SLOTS, STATUS, RESET_DEVICE);
    const isTracked = this.#inflight !== undefined;
    const protocol = always | (isTracked ? bitMask(PROTOCOL_FEATURE.INFLIGHT_SHMFD) : 0n);
    this.#send(REQUEST.SET_PROTOCOL_FEATURES, encodeU64(protocol));
    this.#setFeatures();
    this.#shareMemory();
    if (this.#inflight !== undefined) {
      this.#shareInflight(this.#inflight);
    }
    for (const [index, queue] of this.#guest.queues.entries()) {
      this.setUpRing(index, queue, queue.usedIndex);
      if (this.#backend.isBroken(index)) {
        this.#renewRing(index, queue); // nobody knows which of its requests were answered
      }
    }
  }

  setUpRing(index: number, queue: GuestQueue, base: number): void {
    queue.hasEventIndex = this.#hasEventIndex;
    const { descriptors, available, used } = queue.areas;
    this.#send(REQUEST.SET_VRING_NUM, encodeVringState({ index, value: queue.shape.entries }));
    this.#send(REQUEST.SET_VRING_BASE, encodeVringState({ index, value: base }));
    const address = {
      index,
      flags: 0,
      descriptors: USER_BASE + descriptors,
      available: USER_BASE + available,
      used: USER_BASE + used,
      log: 0,
    };
    this.#send(REQUEST.SET_VRING_ADDR, encodeVringAddress(address));
    this.#sendCall(index, queue);
    this.#sendKick(index, queue);
    this.#send(REQUEST.SET_VRING_ENABLE, encodeVringState({ index, value: 1 }));
    queue.kick();
  }

  /** Something that a VMM or its guest does now and then. */
  act(): void {
    const index = this.#random.below(this.#guest.queues.length);
    const queue = this.#guest.queues[index];
    if (queue === undefined) {
      return;
    }
    switch (this.#random.below(9)) {
      case 0:
        this.#disableAndEnable(index);
        return;
      case 1:
        this.setUpRing(index, queue, this.#takeBase(index));
        return;
      case 2:
        this.#sendCall(index, queue);
        return;
      case 3:
        this.#setFeatures();
        return;
      case 4:
        this.#shareMemory();
        return;
      case 5:
        this.#plug();
        return;
      case 6:
        this.#setWriteback(this.#random.oneIn(2));
        return;
      case 7:
        this.#breakRing(index, queue);
        return;
      default:
        this.#resetDevice();
    }
  }

  /** A queue has ended what used memory that was taken away. */
  releaseMemory(): void {
    this.#session.releaseMemory();
  }

  /** Closes the connection; requests that are under way end first. */
  disconnect(): void {
    this.#session.end(Number.POSITIVE_INFINITY);
  }

  /** The backend is dead: what it had of the guest's events is closed, as its kernel does. */
  abandon(): void {
    for (const [index, { kickFd, callFd }] of this.#guest.queues.entries()) {
      closeCopy(this.#kickCopies[index], kickFd);
      closeCopy(this.#callCopies[index], callFd);
    }
  }

  // --- internal ---

  #setFeatures(): void {
    const { VHOST_USER_PROTOCOL_FEATURES, VERSION_1, RING_INDIRECT_DESC } = FEATURE;
    const { BLK_FLUSH, BLK_CONFIG_WCE, RING_EVENT_IDX } = FEATURE;
    const always = bitMask(VHOST_USER_PROTOCOL_FEATURES, VERSION_1, RING_INDIRECT_DESC);
    const event = this.#hasEventIndex ? bitMask(RING_EVENT_IDX) : 0n;
    const features = always | bitMask(BLK_FLUSH, BLK_CONFIG_WCE) | event;
    this.#send(REQUEST.SET_FEATURES, encodeU64(features));
  }

  /** The first backend makes it, every one gets it. */
  #shareInflight(inflight: InflightRegion): void {
    const queues = this.#guest.queues;
    const shape = {
      mmapSizeBytes: 0,
      mmapOffset: 0,
      queueCount: queues.length,
      queueSize: Math.max(...queues.map(({ shape: { entries } }) => entries)),
    };
    if (inflight.fd < 0) {
      const reply = this.#send(REQUEST.GET_INFLIGHT_FD, encodeInflight(shape));
      inflight.description = decodeInflight(reply ?? new Uint8Array(0));
      inflight.fd = this.#session.inflight.takeReplyDescriptors()[0] ?? -1;
    }
    const payload = encodeInflight(inflight.description ?? shape);
    this.#send(REQUEST.SET_INFLIGHT_FD, payload, [reopened(inflight.fd)]);
  }

  #shareMemory(): void {
    const { region, fd } = this.#guest;
    this.#send(REQUEST.SET_MEM_TABLE, encodeMemoryTable([region]), [reopened(fd)]);
    this.#isPlugged = false;
  }

  /** Memory that no request uses, with a file of its own. */
  #plug(): void {
    if (this.#isPlugged) {
      this.#send(REQUEST.REM_MEM_REG, encodeMemoryRegion(PLUGGED));
    } else {
      this.#send(REQUEST.ADD_MEM_REG, encodeMemoryRegion(PLUGGED), [reopened(this.#guest.fd)]);
    }
    this.#isPlugged = !this.#isPlugged;
  }

  #disableAndEnable(index: number): void {
    this.#send(REQUEST.SET_VRING_ENABLE, encodeVringState({ index, value: 0 }));
    this.#send(REQUEST.SET_VRING_ENABLE, encodeVringState({ index, value: 1 }));
  }

  #takeBase(index: number): number {
    const reply = this.#send(REQUEST.GET_VRING_BASE, encodeVringState({ index, value: 0 }));
    return decodeVringState(reply ?? new Uint8Array(0)).value;
  }

  /** The guest relies on it once it was told; what it relies on less it knows before. */
  #setWriteback(isWriteback: boolean): void {
    const guest = this.#guest;
    const point = guest.flushPoint();
    guest.isWriteback ||= isWriteback;
    const bytes = Uint8Array.of(isWriteback ? 1 : 0);
    const part = { offset: CONFIG_WRITEBACK_OFFSET, flags: 0, bytes };
    const isAlready = !guest.isWriteback;
    try {
      this.#send(REQUEST.SET_CONFIG, encodeConfigPart(part));
    } catch (error) {
      guest.endFlush(point, false);
      throw error;
    }
    if (!isWriteback && !isAlready) {
      guest.endFlush(point, true);
    }
    guest.isWriteback = this.#backend.cache.isWriteback; // it reads back what came of its wish
  }

  /** The ring is left alone from then on, until its driver sets it up anew. */
  #breakRing(index: number, queue: GuestQueue): void {
    queue.breakRing();
    this.#renewRing(index, queue);
  }

  /** As a driver that resets its queue. */
  #renewRing(index: number, queue: GuestQueue): void {
    this.#takeBase(index);
    this.#guest.reapAll();
    this.#guest.forget(index);
    this.setUpRing(index, queue, 0);
  }

  #resetDevice(): void {
    const request = this.#random.pick([REQUEST.RESET_DEVICE, REQUEST.SET_STATUS]);
    this.#send(request, request === REQUEST.SET_STATUS ? encodeU64(0n) : undefined);
    this.#guest.reapAll();
    for (const [index, queue] of this.#guest.queues.entries()) {
      this.#guest.forget(index);
      this.setUpRing(index, queue, 0);
    }
  }

  #sendKick(index: number, queue: GuestQueue): void {
    queue.kickFd = replaced(queue.kickFd, createEvent());
    const fd = this.#channel.duplicate(queue.kickFd);
    this.#kickCopies[index] = fd;
    this.#send(REQUEST.SET_VRING_KICK, encodeU64(BigInt(index)), [fd]);
  }

  #sendCall(index: number, queue: GuestQueue): void {
    const before = queue.callFd;
    const wasCalled = queue.takeCall();
    queue.callFd = replaced(before, createEvent());
    const fd = this.#channel.duplicate(queue.callFd);
    this.#callCopies[index] = fd;
    this.#send(REQUEST.SET_VRING_CALL, encodeU64(BigInt(index)), [fd]);
    if (wasCalled) {
      this.#guest.reapAll();
    }
  }

  #send(
    request: number,
    payload: Uint8Array = new Uint8Array(0),
    descriptors: number[] = [],
  ): Uint8Array | undefined {
    try {
      return this.#session.handle(request, payload, descriptors);
    } finally {
      for (const fd of descriptors) {
        closeDescriptor(fd);
      }
    }
  }
}

/** The front end's: it outlives backends. */
export class InflightRegion implements Disposable {
  fd = -1;
  description: Inflight | undefined;

  [Symbol.dispose](): void {
    this.fd = replaced(this.fd, -1);
  }
}

/** Passes descriptors to itself: so the two sides close their own. */
export class DescriptorChannel implements Disposable {
  readonly #pair = socketPair();
  readonly #channel = new MessageChannel(16);

  duplicate(fd: number): number {
    const received: number[] = [];
    const sent = this.#channel.send(this.#pair.given, 0, 1, [fd]);
    const count = this.#channel.receive(this.#pair.own, 0, 1, received);
    const [copy] = received;
    if (sent !== 1 || count !== 1 || copy === undefined) {
      throw new Error(`cannot duplicate a descriptor: ${sent}, ${count}`);
    }
    return copy;
  }

  [Symbol.dispose](): void {
    this.#channel[Symbol.dispose]();
    closeDescriptor(this.#pair.own);
    closeDescriptor(this.#pair.given);
  }
}

/** Whether it is the front end's own fault, or the disk's, and the connection is given up for it. */
export function isConnectionLost(error: unknown): boolean {
  return error instanceof UbiError;
}

/** Closes a copy of `own`, where the number still leads to it: the backend may have closed it itself. */
function closeCopy(copy: number | undefined, own: number): void {
  if (copy === undefined || copy === own || own < 0 || !isEvent(copy)) {
    return;
  }
  const wasSignalled = drainEvent(own) === 1;
  signalEvent(copy);
  if (drainEvent(own) === 1) {
    closeSync(copy);
  }
  if (wasSignalled) {
    signalEvent(own);
  }
}

function isEvent(fd: number): boolean {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`) === "anon_inode:[eventfd]";
  } catch {
    return false; // closed
  }
}

function reopened(fd: number): number {
  return openSync(`/proc/self/fd/${fd}`, "r+");
}

function replaced(old: number, fd: number): number {
  if (old >= 0) {
    closeSync(old);
  }
  return fd;
}
