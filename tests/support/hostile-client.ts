/**
 * A vhost-user-blk client without manners: raw messages with any descriptors, and a ring in which every
 * word can be set at will. What it sends well-formed, it sends by the same formats as everybody.
 *
 * Its memory, at guest address `GUEST_BASE` (all offsets are relative to it):
 *
 *     0      0x1000     0x2000  0x3000   0x4000    0x5000           0x10000       0x100000
 *     | ring | available | used | headers| statuses| indirect tables | data ...    |
 *
 * With the feature RING_PACKED its ring is packed: chains are set and offered by the same methods, a head is then an
 * id, and the two areas behind the ring are those of events.
 */
import { createEvent, drainEvent, signalEvent } from "../../src/ffi/event.ts";
import { createSharedMemory, mapFile, unmap, viewOf } from "../../src/ffi/memory.ts";
import { closeDescriptor, connectSocket, MessageChannel, PollSet } from "../../src/ffi/socket.ts";
import {
  bitMask,
  decodeHeader,
  decodeU64,
  decodeVringState,
  encodeMemoryTable,
  encodeMessage,
  encodeU64,
  encodeVringAddress,
  encodeVringState,
  FLAG_NEED_REPLY,
  HEADER_BYTES,
  type MemoryRegion,
  PROTOCOL_FEATURE,
  REQUEST,
} from "../../src/formats/vhost-user.ts";
import { encodeRequestHeader, FEATURE, REQUEST_TYPE } from "../../src/formats/virtio-blk.ts";
import {
  DESCRIPTOR_BYTES,
  DESCRIPTOR_INDIRECT,
  DESCRIPTOR_NEXT,
  DESCRIPTOR_WRITE,
} from "../../src/formats/virtio-ring.ts";
import { FIRST_BASE, HostilePackedRing, writePackedDescriptor } from "./hostile-packed-ring.ts";

const GUEST_BASE = 0x1_0000_0000;
export const MEMORY_BYTES = 0x100000;
export const ENTRIES = 256;

export const AVAILABLE = 0x1000;
export const USED = 0x2000;
export const HEADERS = 0x3000;
const STATUSES = 0x4000;
export const TABLES = 0x5000;
export const DATA = 0x10000;
/** A guest address that no region holds. */
export const NOWHERE = 0x77_0000_0000;

export const NEXT = DESCRIPTOR_NEXT;
export const WRITE = DESCRIPTOR_WRITE;
export const INDIRECT = DESCRIPTOR_INDIRECT;

/** What a status byte holds before the device writes it. */
export const STATUS_UNSET = 0xee;

const TIMEOUT_MS = 30_000;

export interface Descriptor {
  /** A guest address; `at` makes one of an offset. */
  readonly address: number;
  readonly length: number;
  readonly flags: number;
  readonly next?: number;
}

export interface UsedElement {
  readonly id: number;
  readonly length: number;
  /** The call descriptor fired. */
  readonly isCalled: boolean;
}

export interface AttachOptions {
  /** Further feature bits. */
  readonly features?: readonly number[];
  readonly protocolFeatures?: readonly number[];
  /** Of a packed ring; others have ENTRIES. */
  readonly packedEntries?: number;
}

/** The guest address of an offset in the client's memory. */
export function at(offset: number): number {
  return GUEST_BASE + offset;
}

/** The payload of SET_FEATURES: what every driver of the tests has, and more. */
export function featureWord(features: readonly number[]): Uint8Array {
  const { VHOST_USER_PROTOCOL_FEATURES, VERSION_1, BLK_FLUSH } = FEATURE;
  return encodeU64(bitMask(VHOST_USER_PROTOCOL_FEATURES, VERSION_1, BLK_FLUSH, ...features));
}

export class HostileClient implements Disposable {
  socket: number;
  readonly memoryFd: number;
  /** The client's memory, all of it. */
  readonly memory: DataView;
  readonly bytes: Uint8Array;
  readonly kickFd = createEvent();
  readonly callFd = createEvent();
  readonly errorFd = createEvent();
  readonly #address: number;
  readonly #channel = new MessageChannel(65536);
  readonly #poll = new PollSet(1);
  #lastUsed = 0;
  /** The used index at the last call. */
  #calledIndex = 0;
  /** Of a packed ring: chains to offer by id, and what was used and not asked for. */
  #packedEntries = ENTRIES;
  #packed: HostilePackedRing | undefined;
  readonly #chains = new Map<number, readonly Descriptor[]>();
  #packedUsed: { readonly id: number; readonly length: number; isCalled: boolean }[] = [];
  #isDisposed = false;

  /** Connects, and sends nothing. */
  constructor(socketPath: string) {
    this.socket = connectSocket(socketPath);
    if (this.socket < 0) {
      throw new Error(`cannot connect to ${socketPath}: ${this.socket}`);
    }
    this.memoryFd = createSharedMemory(MEMORY_BYTES);
    const lengthBytes = MEMORY_BYTES;
    this.#address = mapFile({ fd: this.memoryFd, offsetBytes: 0, lengthBytes, writable: true });
    this.bytes = new Uint8Array(viewOf(this.#address, MEMORY_BYTES));
    this.memory = new DataView(this.bytes.buffer);
  }

  /** Connects and sets up ring 0 as a well-behaved driver does. */
  static attach(socketPath: string, options: AttachOptions = {}): HostileClient {
    const client = new HostileClient(socketPath);
    client.#packedEntries = options.packedEntries ?? ENTRIES;
    client.negotiate(options.features ?? [], options.protocolFeatures);
    client.command(REQUEST.SET_MEM_TABLE, encodeMemoryTable([client.region]), [client.memoryFd]);
    client.startRing(0);
    return client;
  }

  get region(): MemoryRegion {
    return {
      guestAddress: GUEST_BASE,
      sizeBytes: MEMORY_BYTES,
      userAddress: this.#address,
      mmapOffset: 0,
    };
  }

  /** The address of an offset in this process, as ring addresses are told. */
  user(offset: number): number {
    return this.#address + offset;
  }

  negotiate(features: readonly number[], protocolFeatures: readonly number[] = []): void {
    const { REPLY_ACK, CONFIG, MQ } = PROTOCOL_FEATURE;
    const mask = bitMask(REPLY_ACK, CONFIG, MQ, ...protocolFeatures);
    this.ask(REQUEST.GET_FEATURES);
    this.send(REQUEST.SET_PROTOCOL_FEATURES, encodeU64(mask));
    this.command(REQUEST.SET_OWNER);
    this.negotiateAgain(features);
  }

  /** SET_FEATURES alone. */
  negotiateAgain(features: readonly number[]): void {
    this.command(REQUEST.SET_FEATURES, featureWord(features));
    this.#packed = features.includes(FEATURE.RING_PACKED) ? this.#freshPackedRing() : undefined;
  }

  /** The packed ring, where one was negotiated. */
  get packedRing(): HostilePackedRing {
    if (this.#packed === undefined) {
      throw new Error("the ring is not packed");
    }
    return this.#packed;
  }

  /** @param base index of the next chain, of a split ring */
  startRing(index: number, base = 0): void {
    const state = (value: number) => encodeVringState({ index, value });
    const isPacked = this.#packed !== undefined;
    this.command(REQUEST.SET_VRING_NUM, state(isPacked ? this.#packedEntries : ENTRIES));
    this.command(REQUEST.SET_VRING_BASE, state(isPacked ? FIRST_BASE : base));
    this.command(REQUEST.SET_VRING_ADDR, this.ringAddress(index));
    this.command(REQUEST.SET_VRING_ERR, encodeU64(BigInt(index)), [this.errorFd]);
    this.command(REQUEST.SET_VRING_CALL, encodeU64(BigInt(index)), [this.callFd]);
    this.command(REQUEST.SET_VRING_KICK, encodeU64(BigInt(index)), [this.kickFd]);
    this.command(REQUEST.SET_VRING_ENABLE, state(1));
  }

  /** Sets ring 0 up anew, empty, after `stopRing`. */
  restartRing(): void {
    this.bytes.fill(0, 0, HEADERS);
    this.#lastUsed = 0;
    this.#calledIndex = 0;
    this.#packedUsed = [];
    this.#packed &&= this.#freshPackedRing();
    drainEvent(this.callFd);
    this.startRing(0);
  }

  ringAddress(index: number, flags = 0): Uint8Array {
    return encodeVringAddress({
      index,
      flags,
      descriptors: this.user(0),
      available: this.user(AVAILABLE),
      used: this.user(USED),
      log: at(USED),
    });
  }

  // --- messages ---

  send(
    request: number,
    payload: Uint8Array = new Uint8Array(0),
    descriptors: readonly number[] = [],
    flags = 0,
  ): void {
    this.sendBytes(encodeMessage(request, flags, payload), descriptors);
  }

  /** Any bytes at all. A peer that has gone is no error here. */
  sendBytes(bytes: Uint8Array, descriptors: readonly number[] = []): void {
    this.#channel.bytes.set(bytes);
    this.#channel.send(this.socket, 0, bytes.length, descriptors);
  }

  /** The payload of the next answer, or undefined when the backend closed the connection. */
  reply(): Uint8Array | undefined {
    const head = this.#receive(HEADER_BYTES);
    return head === undefined ? undefined : this.#receive(decodeHeader(head).sizeBytes);
  }

  /** A request that has an answer. @throws Error when there is none */
  ask(request: number, payload?: Uint8Array): Uint8Array {
    this.send(request, payload);
    const answer = this.reply();
    if (answer === undefined) {
      throw new Error(`request ${request} is answered by the end of the connection`);
    }
    return answer;
  }

  /** "accepted", "refused" by a negative acknowledgement, or "closed". */
  outcome(request: number, payload?: Uint8Array, descriptors?: readonly number[]): string {
    this.send(request, payload, descriptors, FLAG_NEED_REPLY);
    const answer = this.reply();
    if (answer === undefined) {
      return "closed";
    }
    return decodeU64(answer) === 0n ? "accepted" : "refused";
  }

  /** A request that must be accepted. */
  command(request: number, payload?: Uint8Array, descriptors?: readonly number[]): void {
    const outcome = this.outcome(request, payload, descriptors);
    if (outcome !== "accepted") {
      throw new Error(`request ${request} is ${outcome}`);
    }
  }

  /** Whether the backend ends the connection within the time limit; answers are skipped. */
  isClosed(): boolean {
    while (this.#receive(1) !== undefined) {}
    return true;
  }

  /** Stops ring 0 and returns its next available index. */
  stopRing(): number {
    const payload = encodeVringState({ index: 0, value: 0 });
    return decodeVringState(this.ask(REQUEST.GET_VRING_BASE, payload)).value;
  }

  // --- the ring ---

  /** Of a packed ring: the one descriptor of a chain. */
  setDescriptor(index: number, descriptor: Descriptor): void {
    if (this.#packed !== undefined) {
      this.#chains.set(index, [descriptor]);
      return;
    }
    this.#writeDescriptor(index * DESCRIPTOR_BYTES, descriptor);
  }

  /** One entry of the indirect table at `offset`. */
  setIndirect(offset: number, index: number, descriptor: Descriptor): void {
    if (this.#packed !== undefined) {
      const at = offset + index * DESCRIPTOR_BYTES;
      writePackedDescriptor(this.memory, at, descriptor, descriptor.next ?? 0);
      this.memory.setUint16(at + 14, descriptor.flags, true);
      return;
    }
    this.#writeDescriptor(offset + index * DESCRIPTOR_BYTES, descriptor);
  }

  /** Writes a chain from descriptor `head` on, linked in order: flags get NEXT but for the last. */
  setChain(head: number, chain: readonly Descriptor[]): void {
    this.#chains.set(head, chain);
    if (this.#packed !== undefined) {
      return;
    }
    chain.forEach((descriptor, i) => {
      const link = i + 1 < chain.length ? NEXT : 0;
      const next = head + i + 1;
      this.setDescriptor(head + i, { next, ...descriptor, flags: descriptor.flags | link });
    });
  }

  /** A request header in the place of `head`; its descriptor. */
  header(head: number, type: number, sector: number): Descriptor {
    this.bytes.set(encodeRequestHeader(type, sector), HEADERS + head * 16);
    return { address: at(HEADERS + head * 16), length: 16, flags: 0 };
  }

  /** The status byte of `head`; its descriptor. */
  statusByte(head: number): Descriptor {
    this.bytes[STATUSES + head] = STATUS_UNSET;
    return { address: at(STATUSES + head), length: 1, flags: WRITE };
  }

  status(head: number): number {
    return this.bytes[STATUSES + head] ?? STATUS_UNSET;
  }

  /** Puts heads into the available ring and shows them; no kick. */
  offer(...heads: readonly number[]): void {
    if (this.#packed !== undefined) {
      for (const head of heads) {
        this.#packed.offer(head, this.#chains.get(head) ?? []);
      }
      return;
    }
    const index = this.memory.getUint16(AVAILABLE + 2, true);
    heads.forEach((head, i) => {
      const place = (index + i) % ENTRIES;
      this.memory.setUint16(AVAILABLE + 4 + place * 2, head, true);
    });
    // Of use with EVENT_IDX only: call at the next used element.
    this.memory.setUint16(AVAILABLE + 4 + ENTRIES * 2, this.#lastUsed, true);
    this.memory.setUint16(AVAILABLE + 2, index + heads.length, true);
  }

  kick(): void {
    signalEvent(this.kickFd);
  }

  /** With EVENT_IDX: the index at which the device wants a kick; one of the past while it is at work. */
  availableEvent(): number {
    return this.memory.getUint16(USED + 4 + ENTRIES * 8, true);
  }

  /** Of a packed ring: how many chains were used. */
  usedIndex(): number {
    if (this.#packed !== undefined) {
      this.#collect(this.#packed);
      return this.#packed.usedCount;
    }
    return this.memory.getUint16(USED + 2, true);
  }

  /** The next used element, once it is there and the call came. @throws Error when it never comes */
  waitUsed(): UsedElement {
    if (this.#packed !== undefined) {
      return this.#waitPackedUsed(this.#packed);
    }
    const deadlineMs = performance.now() + TIMEOUT_MS;
    while (this.usedIndex() === this.#lastUsed) {
      if (performance.now() > deadlineMs) {
        throw new Error("the backend uses nothing");
      }
      this.#wait(this.callFd, 5);
    }
    const place = USED + 4 + (this.#lastUsed % ENTRIES) * 8;
    this.#lastUsed = (this.#lastUsed + 1) & 0xffff;
    const isCalled = this.#isCalledAlready() || this.#wait(this.callFd, TIMEOUT_MS);
    if (drainEvent(this.callFd) === 1) {
      this.#calledIndex = this.usedIndex(); // one call is enough for all that is there now
    }
    const id = this.memory.getUint32(place, true);
    return { id, length: this.memory.getUint32(place + 4, true), isCalled };
  }

  /** `chain` alone on the ring, from descriptor 0 on: what the backend does with it. */
  submit(chain: readonly Descriptor[]): UsedElement {
    this.setChain(0, chain);
    this.offer(0);
    this.kick();
    return this.waitUsed();
  }

  /** Whether the error descriptor of the ring fires. */
  isRingBroken(): boolean {
    return this.#wait(this.errorFd, TIMEOUT_MS);
  }

  /** A well-formed write and read of one sector: true when the data came back. */
  isServed(sector = 1, value = 0x5a): boolean {
    const data = at(DATA);
    const header = this.header(0, REQUEST_TYPE.OUT, sector);
    this.bytes.fill(value, DATA, DATA + 512);
    this.submit([header, { address: data, length: 512, flags: 0 }, this.statusByte(0)]);
    const written = this.status(0);
    this.bytes.fill(0, DATA, DATA + 512);
    const read = this.header(0, REQUEST_TYPE.IN, sector);
    this.submit([read, { address: data, length: 512, flags: WRITE }, this.statusByte(0)]);
    const isRight = this.bytes.subarray(DATA, DATA + 512).every((byte) => byte === value);
    return written === 0 && this.status(0) === 0 && isRight;
  }

  [Symbol.dispose](): void {
    if (this.#isDisposed) {
      return;
    }
    this.#isDisposed = true;
    for (const fd of [this.socket, this.memoryFd, this.kickFd, this.callFd, this.errorFd]) {
      closeDescriptor(fd);
    }
    this.#poll[Symbol.dispose]();
    this.#channel[Symbol.dispose]();
    unmap(this.#address, MEMORY_BYTES);
  }

  // --- internal ---

  #freshPackedRing(): HostilePackedRing {
    return new HostilePackedRing(this.memory, this.#packedEntries);
  }

  #waitPackedUsed(ring: HostilePackedRing): UsedElement {
    const deadlineMs = performance.now() + TIMEOUT_MS;
    for (;;) {
      this.#collect(ring);
      const used = this.#packedUsed.shift();
      if (used !== undefined) {
        const isCalled = used.isCalled || this.#wait(this.callFd, TIMEOUT_MS);
        if (drainEvent(this.callFd) === 1) {
          this.#collect(ring); // one call is enough for all that is there now
          for (const other of this.#packedUsed) {
            other.isCalled = true;
          }
        }
        return { ...used, isCalled };
      }
      if (performance.now() > deadlineMs) {
        throw new Error("the backend uses nothing");
      }
      this.#wait(this.callFd, 5);
    }
  }

  #collect(ring: HostilePackedRing): void {
    for (let used = ring.next(); used !== undefined; used = ring.next()) {
      this.#packedUsed.push({ ...used, isCalled: false });
    }
  }

  #writeDescriptor(offset: number, descriptor: Descriptor): void {
    this.memory.setBigUint64(offset, BigInt(descriptor.address), true);
    this.memory.setUint32(offset + 8, descriptor.length, true);
    this.memory.setUint16(offset + 12, descriptor.flags, true);
    this.memory.setUint16(offset + 14, descriptor.next ?? 0, true);
  }

  /** Whether the last call was for the element just taken, too. */
  #isCalledAlready(): boolean {
    const ahead = (this.#calledIndex - this.#lastUsed) & 0xffff;
    return ahead < 0x8000;
  }

  #wait(fd: number, timeoutMs: number): boolean {
    this.#poll.watch(0, fd);
    return this.#poll.wait(timeoutMs) > 0;
  }

  /** Exactly `lengthBytes`, or undefined at the end of the connection. */
  #receive(lengthBytes: number): Uint8Array | undefined {
    const strays: number[] = [];
    for (let done = 0; done < lengthBytes; ) {
      if (!this.#wait(this.socket, TIMEOUT_MS)) {
        throw new Error("the backend neither answers nor closes the connection");
      }
      const got = this.#channel.receive(this.socket, done, lengthBytes - done, strays);
      if (got <= 0) {
        return undefined;
      }
      done += got;
    }
    strays.forEach(closeDescriptor);
    return this.#channel.bytes.slice(0, lengthBytes);
  }
}
