/** Makes messages of the vhost-user protocol at random: mostly what a front end could send, with something wrong in it. */
import { mkdtempSync, openSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createEvent, createTimer } from "../../src/ffi/event.ts";
import { createSharedMemory, mapFile, unmap, viewOf } from "../../src/ffi/memory.ts";
import { closeDescriptor } from "../../src/ffi/socket.ts";
import {
  encodeConfigPart,
  encodeInflight,
  encodeMemoryRegion,
  encodeMemoryTable,
  encodeU64,
  encodeVringAddress,
  encodeVringState,
  HEADER_BYTES,
  hasBit,
  type MemoryRegion,
  PROTOCOL_FEATURE,
  REQUEST,
} from "../../src/formats/vhost-user.ts";
import type { SeededRandom } from "./random.ts";
import { socketPair } from "./socket-pair.ts";

const MEMORY_BYTES = 0x40000;
const GUEST_BASE = 0x1_0000_0000;
const AVAILABLE = 0x10000;
const USED = 0x20000;
const REQUESTS = Object.values(REQUEST);
/** What a device without a network, a screen or cryptography may be asked again and again. */
const SERVED: readonly number[] = [
  ...[REQUEST.GET_FEATURES, REQUEST.SET_FEATURES, REQUEST.SET_MEM_TABLE, REQUEST.GET_QUEUE_NUM],
  ...[REQUEST.GET_PROTOCOL_FEATURES, REQUEST.SET_PROTOCOL_FEATURES, REQUEST.RESET_OWNER],
  ...[
    REQUEST.SET_VRING_NUM,
    REQUEST.SET_VRING_BASE,
    REQUEST.SET_VRING_ADDR,
    REQUEST.GET_VRING_BASE,
  ],
  ...[REQUEST.SET_VRING_KICK, REQUEST.SET_VRING_CALL, REQUEST.SET_VRING_ERR],
  ...[REQUEST.SET_VRING_ENABLE, REQUEST.SET_VRING_KICK, REQUEST.SET_VRING_ENABLE],
  ...[REQUEST.SET_BACKEND_REQ_FD, REQUEST.GET_CONFIG, REQUEST.SET_CONFIG, REQUEST.RESET_DEVICE],
  ...[REQUEST.GET_MAX_MEM_SLOTS, REQUEST.ADD_MEM_REG, REQUEST.REM_MEM_REG],
  ...[REQUEST.SET_STATUS, REQUEST.GET_STATUS],
];
/** What is served only where the backend offers it. */
const INFLIGHT: readonly number[] = [REQUEST.GET_INFLIGHT_FD, REQUEST.SET_INFLIGHT_FD];
const LOG: readonly number[] = [REQUEST.SET_LOG_BASE, REQUEST.SET_LOG_BASE];
/** As many as go with one message over a socket of ours. */
const DESCRIPTORS_MAX = 60;
const NEED_REPLY = 8;
const NUMBERS = [
  0,
  1,
  2,
  3,
  7,
  8,
  64,
  255,
  256,
  257,
  4096,
  32768,
  65535,
  65536,
  2 ** 31,
  2 ** 32 - 1,
];
const WIDE = [0n, 1n, 2n ** 12n, 2n ** 32n, 2n ** 47n, 2n ** 53n, 2n ** 63n, 2n ** 64n - 1n];

export interface MadeMessage {
  readonly bytes: Uint8Array;
  readonly descriptors: readonly number[];
}

/** What the backend offers. */
export interface Offer {
  readonly features: bigint;
  readonly protocolFeatures: bigint;
}

export class MessageMaker implements Disposable {
  readonly #random: SeededRandom;
  readonly #offer: Offer;
  readonly #served: readonly number[];
  readonly #memoryFd: number;
  readonly #address: number;
  readonly #events = [createEvent(), createEvent(), createEvent()] as const;
  /** Descriptors of all kinds, the right ones among them. */
  readonly #descriptors: readonly number[];
  /** Regions beside that of the table. */
  #added = 0;
  /** One part in so many is wrong: some front ends get far, others not. */
  readonly #calm: number;
  readonly #pair = socketPair();
  readonly #folder = mkdtempSync(join(tmpdir(), "ubiblk-messages-"));

  constructor(random: SeededRandom, offer: Offer) {
    this.#offer = offer;
    const isOffered = (bit: number) => hasBit(offer.protocolFeatures, bit);
    this.#served = [
      ...SERVED,
      ...(isOffered(PROTOCOL_FEATURE.INFLIGHT_SHMFD) ? INFLIGHT : []),
      ...(isOffered(PROTOCOL_FEATURE.LOG_SHMFD) ? LOG : []),
    ];
    this.#random = random;
    this.#calm = random.pick([8, 80, 1000]);
    this.#memoryFd = createSharedMemory(MEMORY_BYTES);
    this.#address = mapFile({
      fd: this.#memoryFd,
      offsetBytes: 0,
      lengthBytes: MEMORY_BYTES,
      writable: true,
    });
    const path = join(this.#folder, "file");
    writeFileSync(path, new Uint8Array(5000));
    this.#descriptors = [
      ...this.#events,
      this.#memoryFd,
      createSharedMemory(4096),
      createTimer(),
      this.#pair.given,
      openSync("/dev/null", "r+"),
      openSync("/dev/zero", "r+"),
      openSync(path, "r+"),
      openSync(path, "r"),
      openSync(this.#folder, "r"),
    ];
  }

  /** Shared memory of another kind: zeros, noise, or short chains to nowhere with an index that shows some of them. */
  scribble(): void {
    const random = this.#random;
    const words = new Uint32Array(viewOf(this.#address, MEMORY_BYTES));
    const kind = random.below(3);
    words.fill(0);
    for (let i = 0; i < 0x10000 && kind > 0; i += kind === 1 ? 7 : 64) {
      words[i] = random.below(2 ** 32);
    }
    if (kind === 2) {
      words[AVAILABLE / 4] = random.below(66) << 16;
    }
  }

  /** A beginning that every front end has, so that what follows gets further. */
  opening(): readonly MadeMessage[] {
    const message = (request: number, payload: Uint8Array, descriptors: readonly number[] = []) =>
      this.#frame(request, 1, payload, descriptors);
    const event = this.#random.pick(this.#events);
    return [
      message(REQUEST.GET_FEATURES, new Uint8Array(0)),
      message(REQUEST.SET_PROTOCOL_FEATURES, encodeU64(this.#protocolFeatures())),
      message(REQUEST.SET_FEATURES, encodeU64(this.#features())),
      message(REQUEST.SET_MEM_TABLE, encodeMemoryTable([this.#region(0)]), [this.#memoryFd]),
      message(REQUEST.SET_VRING_NUM, encodeVringState({ index: 0, value: 64 })),
      message(REQUEST.SET_VRING_BASE, encodeVringState({ index: 0, value: 0 })),
      message(REQUEST.SET_VRING_ADDR, this.#ringAddress(0)),
      message(REQUEST.SET_VRING_CALL, encodeU64(0n), [event]),
      message(REQUEST.SET_VRING_KICK, encodeU64(0n), [event]),
      message(REQUEST.SET_VRING_ENABLE, encodeVringState({ index: 0, value: 1 })),
    ];
  }

  any(): MadeMessage {
    const random = this.#random;
    const wanted = this.#isWrong() ? this.#pick(REQUESTS, 1) : this.#pick(this.#served, 1);
    const isIdle = wanted === REQUEST.REM_MEM_REG && this.#added === 0 && !this.#isWrong();
    const request = isIdle ? REQUEST.GET_STATUS : wanted;
    let payload = this.#payload(request);
    if (this.#isWrong()) {
      payload = this.#changed(payload);
    }
    const version = this.#isWrong() ? random.below(4) : 1;
    const replies = (random.oneIn(2) ? NEED_REPLY : 0) | (this.#isWrong() ? 4 : 0);
    return this.#frame(request, version | replies, payload, this.#passed(request, payload));
  }

  [Symbol.dispose](): void {
    [...this.#descriptors, this.#pair.own].forEach(closeDescriptor);
    unmap(this.#address, MEMORY_BYTES);
    rmSync(this.#folder, { recursive: true });
  }

  // --- internal ---

  #frame(
    request: number,
    flags: number,
    payload: Uint8Array,
    descriptors: readonly number[],
  ): MadeMessage {
    const bytes = new Uint8Array(HEADER_BYTES + payload.length);
    const view = new DataView(bytes.buffer);
    view.setUint32(0, request, true);
    view.setUint32(4, flags, true);
    const size = this.#random.oneIn(8 * this.#calm) ? this.#number() : payload.length;
    view.setUint32(8, size, true);
    bytes.set(payload, HEADER_BYTES);
    return { bytes, descriptors };
  }

  #payload(request: number): Uint8Array {
    const random = this.#random;
    const index = this.#isWrong() ? this.#number() : random.below(2);
    switch (request) {
      case REQUEST.SET_FEATURES:
        return encodeU64(this.#features());
      case REQUEST.SET_PROTOCOL_FEATURES:
        return encodeU64(this.#protocolFeatures());
      case REQUEST.SET_MEM_TABLE:
        this.#added = 0;
        return encodeMemoryTable(Array.from({ length: random.below(4) }, () => this.#region(0)));
      case REQUEST.ADD_MEM_REG:
        this.#added += 1;
        return encodeMemoryRegion(this.#region(this.#added));
      case REQUEST.REM_MEM_REG: {
        const region = encodeMemoryRegion(this.#region(this.#added));
        this.#added = Math.max(0, this.#added - 1);
        return region;
      }
      case REQUEST.SET_VRING_ADDR:
        return this.#ringAddress(index);
      case REQUEST.SET_VRING_NUM:
      case REQUEST.SET_VRING_BASE:
      case REQUEST.GET_VRING_BASE:
      case REQUEST.SET_VRING_ENABLE:
        return encodeVringState({
          index,
          value: this.#isWrong() ? this.#number() : this.#usualValue(request),
        });
      case REQUEST.GET_CONFIG:
      case REQUEST.SET_CONFIG: {
        const bytes = new Uint8Array(random.pick([1, 8, 57, 60, 76, 256]));
        const offset = this.#isWrong() ? this.#number() : random.pick([0, 32, 8, 0x100]);
        return encodeConfigPart({ offset, flags: this.#number(), bytes });
      }
      case REQUEST.GET_INFLIGHT_FD:
      case REQUEST.SET_INFLIGHT_FD:
        return encodeInflight({
          mmapSizeBytes: random.pick([0, 4096, MEMORY_BYTES, 2 ** 40]),
          mmapOffset: random.pick([0, 0, 4096, 17]),
          queueCount: random.pick([0, 1, 1, 2, 65535]),
          queueSize: random.pick([0, 64, 64, 128, 3, 65535]),
        });
      case REQUEST.SET_LOG_BASE: {
        const pair = [
          random.pick([BigInt(MEMORY_BYTES), BigInt(MEMORY_BYTES), 0n, 4096n, 2n ** 40n]),
          random.pick([0n, 0n, 4096n, 3n]),
        ];
        return new Uint8Array(BigUint64Array.from(pair).buffer);
      }
      case REQUEST.SET_VRING_KICK:
      case REQUEST.SET_VRING_CALL:
      case REQUEST.SET_VRING_ERR:
        return encodeU64(BigInt(index));
      case REQUEST.SET_STATUS:
        return encodeU64(BigInt(random.pick([0, 1, 3, 11, 15])));
      default:
        return this.#isWrong() ? encodeU64(this.#wide()) : new Uint8Array(0);
    }
  }

  #usualValue(request: number): number {
    switch (request) {
      case REQUEST.SET_VRING_NUM:
        return this.#random.pick([64, 64, 128, 1, 1024]);
      case REQUEST.SET_VRING_ENABLE:
        return this.#random.below(2);
      default:
        return this.#random.pick([0, 0, 0, 5]);
    }
  }

  /** Regions in a row in the guest's memory and in ours, all of the same file. */
  #region(place: number): MemoryRegion {
    const random = this.#random;
    const isWrong = this.#isWrong();
    return {
      guestAddress: GUEST_BASE + (isWrong ? this.#number() : place * MEMORY_BYTES),
      sizeBytes: isWrong ? this.#number() : MEMORY_BYTES,
      userAddress: this.#address + place * MEMORY_BYTES,
      mmapOffset: isWrong ? random.pick([0, 4096, 17, 2 ** 40]) : 0,
    };
  }

  #ringAddress(index: number): Uint8Array {
    const random = this.#random;
    const place = (usual: number) =>
      this.#isWrong() ? random.pick([0, 1, 2 ** 46, this.#address + MEMORY_BYTES - 8]) : usual;
    return encodeVringAddress({
      index,
      flags: random.oneIn(8) ? this.#number() : 0,
      descriptors: place(this.#address),
      available: place(this.#address + AVAILABLE),
      used: place(this.#address + USED),
      log: place(0),
    });
  }

  #passed(request: number, payload: Uint8Array): readonly number[] {
    const random = this.#random;
    if (this.#isWrong()) {
      const count = random.pick([1, 1, 2, 3, 9, DESCRIPTORS_MAX]);
      return Array.from({ length: count }, () => this.#pick(this.#descriptors, 0));
    }
    const choose = (right: number) => [this.#isWrong() ? this.#pick(this.#descriptors, 0) : right];
    switch (request) {
      case REQUEST.SET_VRING_KICK:
      case REQUEST.SET_VRING_CALL:
      case REQUEST.SET_VRING_ERR:
        return choose(random.pick(this.#events));
      case REQUEST.SET_BACKEND_REQ_FD:
        return choose(this.#pair.given);
      case REQUEST.SET_MEM_TABLE:
        return Array.from({ length: Math.min(payload[0] ?? 0, DESCRIPTORS_MAX) }, () =>
          choose(this.#memoryFd),
        ).flat();
      case REQUEST.ADD_MEM_REG:
      case REQUEST.SET_INFLIGHT_FD:
      case REQUEST.SET_LOG_BASE:
      case REQUEST.SET_LOG_FD:
        return choose(this.#memoryFd);
      default:
        return [];
    }
  }

  #changed(payload: Uint8Array): Uint8Array {
    const random = this.#random;
    const length = random.oneIn(3) ? random.below(100) : payload.length;
    const changed = new Uint8Array(length);
    changed.set(payload.subarray(0, length));
    for (let i = random.below(4); i > 0 && length > 0; i--) {
      changed[random.below(length)] = random.below(256);
    }
    return changed;
  }

  /** What is offered at most, less some of it; seldom something else. */
  #features(): bigint {
    const mask = this.#offer.features;
    return this.#isWrong() ? this.#wide() : mask & ~(1n << BigInt(this.#random.below(40)));
  }

  #protocolFeatures(): bigint {
    const mask = this.#offer.protocolFeatures;
    return this.#isWrong() ? this.#wide() : mask & ~(1n << BigInt(this.#random.below(30)));
  }

  #isWrong(): boolean {
    return this.#random.oneIn(this.#calm);
  }

  #number(): number {
    return this.#pick(NUMBERS, 0);
  }

  #wide(): bigint {
    return this.#pick(WIDE, 0n);
  }

  #pick<T>(choices: readonly T[], otherwise: T): T {
    return choices[this.#random.below(choices.length)] ?? otherwise;
  }
}
