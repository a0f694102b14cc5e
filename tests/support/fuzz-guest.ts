/** A fuzzing guest: its memory (`fuzz-layout.ts`), its connection to a backend, and its one ring. */
import { Connection } from "../../src/bench/connection.ts";
import { createEvent, drainEvent, signalEvent } from "../../src/ffi/event.ts";
import { createSharedMemory, mapFile, unmap, viewOf } from "../../src/ffi/memory.ts";
import { closeDescriptor, PollSet } from "../../src/ffi/socket.ts";
import {
  bitMask,
  decodeInflight,
  decodeVringState,
  encodeInflight,
  encodeMemoryTable,
  encodeVringAddress,
  encodeVringState,
  hasBit,
  PROTOCOL_FEATURE,
  REQUEST,
} from "../../src/formats/vhost-user.ts";
import { FEATURE } from "../../src/formats/virtio-blk.ts";
import {
  AVAILABLE,
  FILE_BYTES,
  HOSTILE,
  HOSTILE_BASE,
  HOSTILE_REGION_BYTES,
  TRUSTED_BASE,
  USED,
} from "./fuzz-layout.ts";
import { PackedFuzzRing } from "./fuzz-packed-ring.ts";
import type { FuzzRing, RingShape, UsedChain } from "./fuzz-ring.ts";
import { SplitFuzzRing } from "./fuzz-split-ring.ts";
import type { SeededRandom } from "./random.ts";

const TIMEOUT_MS = 30_000;
/** One queue, whose rings have so many entries at most. */
const INFLIGHT = { mmapOffset: 0, queueCount: 1, queueSize: 1024 };

export class FuzzGuest implements Disposable {
  readonly address: number;
  readonly memory: ArrayBuffer;
  readonly bytes: Uint8Array;
  readonly words: Uint32Array;
  /** Features of the device that this driver knows. */
  features = 0n;
  #shape: RingShape | undefined;
  #ring: FuzzRing | undefined;
  readonly #fd: number;
  readonly #socketPath: string;
  #connection: Connection;
  readonly #kickFd = createEvent();
  readonly #callFd = createEvent();
  readonly #errorFd = createEvent();
  readonly #poll = new PollSet(1);
  #isTracked = false;

  constructor(socketPath: string) {
    this.#socketPath = socketPath;
    this.#fd = createSharedMemory(FILE_BYTES);
    this.address = mapFile({
      fd: this.#fd,
      offsetBytes: 0,
      lengthBytes: FILE_BYTES,
      writable: true,
    });
    this.memory = viewOf(this.address, FILE_BYTES);
    this.bytes = new Uint8Array(this.memory);
    this.words = new Uint32Array(this.memory);
    this.#connection = new Connection(socketPath, TIMEOUT_MS);
  }

  get ring(): FuzzRing {
    if (this.#ring === undefined) {
      throw new Error("the guest has no ring yet");
    }
    return this.#ring;
  }

  // --- the connection ---

  /**
   * Negotiates features with a backend that knows nothing of this guest yet.
   * @param isTracked the backend notes requests in flight in memory of the front end
   */
  connect(isTracked: boolean): void {
    const connection = this.#connection;
    const offered = connection.askFirst(REQUEST.GET_FEATURES);
    const { REPLY_ACK, CONFIG, MQ, INFLIGHT_SHMFD } = PROTOCOL_FEATURE;
    const inflight = isTracked ? bitMask(INFLIGHT_SHMFD) : 0n;
    connection.commandU64(REQUEST.SET_PROTOCOL_FEATURES, bitMask(REPLY_ACK, CONFIG, MQ) | inflight);
    connection.isAcknowledging = true;
    connection.command(REQUEST.SET_OWNER);
    this.#isTracked = isTracked;
    const wanted = [
      ...[FEATURE.VHOST_USER_PROTOCOL_FEATURES, FEATURE.VERSION_1, FEATURE.BLK_FLUSH],
      ...[FEATURE.BLK_DISCARD, FEATURE.BLK_WRITE_ZEROES, FEATURE.RING_INDIRECT_DESC],
    ];
    this.features = bitMask(...wanted.filter((bit) => hasBit(offered, bit)));
    this.shareMemory();
  }

  /** Goes without a word, and comes back. */
  reconnect(isTracked: boolean): void {
    this.#connection[Symbol.dispose]();
    this.#connection = new Connection(this.#socketPath, TIMEOUT_MS);
    this.connect(isTracked);
  }

  /** Tells the memory table; again while the ring runs is as good. */
  shareMemory(): void {
    const regions = [
      { guestAddress: TRUSTED_BASE, sizeBytes: HOSTILE, mmapOffset: 0 },
      { guestAddress: HOSTILE_BASE, sizeBytes: HOSTILE_REGION_BYTES, mmapOffset: HOSTILE },
      {
        guestAddress: HOSTILE_BASE + HOSTILE_REGION_BYTES,
        sizeBytes: HOSTILE_REGION_BYTES,
        mmapOffset: HOSTILE + HOSTILE_REGION_BYTES,
      },
    ].map((region) => ({ ...region, userAddress: this.address + region.mmapOffset }));
    this.#connection.command(
      REQUEST.SET_MEM_TABLE,
      encodeMemoryTable(regions),
      regions.map(() => this.#fd),
    );
  }

  /** Starts a ring that is empty. */
  startRing(shape: RingShape, random: SeededRandom): void {
    const Ring = shape.isPacked ? PackedFuzzRing : SplitFuzzRing;
    const ring = new Ring(this.memory, shape, random);
    this.#shape = shape;
    this.#ring = ring;
    drainEvent(this.#callFd);
    drainEvent(this.#errorFd);
    drainEvent(this.#kickFd);
    const event = shape.hasEventIndex ? bitMask(FEATURE.RING_EVENT_IDX) : 0n;
    const packed = shape.isPacked ? bitMask(FEATURE.RING_PACKED) : 0n;
    const connection = this.#connection;
    connection.commandU64(REQUEST.SET_FEATURES, this.features | event | packed);
    if (this.#isTracked) {
      this.#shareInflight();
    }
    const state = (value: number) => encodeVringState({ index: 0, value });
    connection.command(REQUEST.SET_VRING_NUM, state(ring.entries));
    connection.command(REQUEST.SET_VRING_BASE, state(ring.base));
    connection.command(
      REQUEST.SET_VRING_ADDR,
      encodeVringAddress({
        index: 0,
        flags: 0,
        descriptors: this.address,
        available: this.address + AVAILABLE,
        used: this.address + USED,
        log: 0,
      }),
    );
    connection.commandU64(REQUEST.SET_VRING_ERR, 0n, [this.#errorFd]);
    this.renewCall();
    connection.commandU64(REQUEST.SET_VRING_KICK, 0n, [this.#kickFd]);
    this.enableRing(true);
  }

  enableRing(isEnabled: boolean): void {
    const value = isEnabled ? 1 : 0;
    this.#connection.command(REQUEST.SET_VRING_ENABLE, encodeVringState({ index: 0, value }));
  }

  /** The call descriptor may be exchanged at any time; what was called before stays called. */
  renewCall(): void {
    this.#connection.commandU64(REQUEST.SET_VRING_CALL, 0n, [this.#callFd]);
  }

  /** Stops the ring and returns its next available index. */
  stopRing(): number {
    const payload = encodeVringState({ index: 0, value: 0 });
    return decodeVringState(this.#connection.ask(REQUEST.GET_VRING_BASE, payload)).value;
  }

  resetDevice(): void {
    this.#connection.command(REQUEST.RESET_DEVICE);
  }

  // --- the ring ---

  /** Shows what was put into the ring, and kicks. */
  show(): void {
    const isWanted = this.ring.show();
    if (isWanted || this.#shape?.isKickingAsAsked !== true) {
      this.kick();
    }
  }

  kick(): void {
    signalEvent(this.#kickFd);
  }

  /** The next used chain. @throws Error when none comes, or no call for it */
  takeUsed(): UsedChain {
    const { ring } = this;
    const deadlineMs = performance.now() + TIMEOUT_MS;
    while (!ring.hasUsed()) {
      if (performance.now() > deadlineMs) {
        throw new Error("the device uses nothing");
      }
      if (this.#shape?.isPolling === true) {
        Bun.sleepSync(0.05);
        continue;
      }
      ring.arm();
      if (!ring.hasUsed()) {
        this.#waitForCall();
      }
    }
    return ring.takeUsed();
  }

  /** Whether the device says that the ring is broken. */
  isBroken(): boolean {
    this.#poll.watch(0, this.#errorFd);
    return this.#poll.wait(TIMEOUT_MS) > 0;
  }

  [Symbol.dispose](): void {
    this.#connection[Symbol.dispose]();
    this.#poll[Symbol.dispose]();
    [this.#fd, this.#kickFd, this.#callFd, this.#errorFd].forEach(closeDescriptor);
    unmap(this.address, FILE_BYTES);
  }

  // --- internal ---

  /** Zeros: this ring never was before. */
  #shareInflight(): void {
    const wanted = encodeInflight({ ...INFLIGHT, mmapSizeBytes: 0 });
    const answer = this.#connection.ask(REQUEST.GET_INFLIGHT_FD, wanted);
    const { mmapSizeBytes } = decodeInflight(answer); // more for a packed ring
    const fd = createSharedMemory(mmapSizeBytes);
    const description = { ...INFLIGHT, mmapSizeBytes };
    this.#connection.command(REQUEST.SET_INFLIGHT_FD, encodeInflight(description), [fd]);
    closeDescriptor(fd);
  }

  #waitForCall(): void {
    this.#poll.watch(0, this.#callFd);
    if (this.#poll.wait(TIMEOUT_MS) === 0 && this.ring.hasUsed()) {
      throw new Error("a used chain came without a call");
    }
    drainEvent(this.#callFd);
  }
}
