/**
 * A guest: it sends requests of all kinds through all queues, good ones and bad ones, and compares every answer with
 * the model. Its memory and rings outlive backends.
 */
import { closeSync } from "node:fs";
import { createSharedMemory, mapFile, unmap, viewOf } from "../../../src/ffi/memory.ts";
import type { MemoryRegion } from "../../../src/formats/vhost-user.ts";
import {
  encodeRangeSegment,
  REQUEST_TYPE,
  SEGMENT_UNMAP,
  STATUS,
} from "../../../src/formats/virtio-blk.ts";
import type { SeededRandom } from "../random.ts";
import type { FlushPoint, GuestModel, GuestRead, GuestWrite } from "./guest-model.ts";
import {
  type ChainPart,
  DATA_BYTES,
  type EndedSlot,
  GuestQueue,
  type QueueShape,
  queueBytes,
  STATUS_UNSET,
} from "./guest-queue.ts";
import { Content, contentAt, fillContent } from "./sector-content.ts";
import { SECTOR } from "./sim-disk.ts";

const GUEST_BASE = 0x1_0000_0000;
export const USER_BASE = 0x7e00_0000_0000;
export const DEVICE_ID = "simulated";
const SECTORS_MAX = DATA_BYTES / SECTOR;
const UNKNOWN_TYPE = 77;
/** Nothing of the guest's is there. */
const NOWHERE = 0x4000_0000;

interface Request {
  readonly kind: "read" | "write" | "flush" | "zero" | "discard" | "id" | "bad";
  readonly first: number;
  readonly count: number;
  readonly write?: GuestWrite;
  readonly read?: GuestRead;
  readonly flush?: FlushPoint;
  /** When its end was shown. */
  shownAt?: number;
  /** Of a bad one: what it is to be answered with, STATUS_UNSET for nothing. */
  readonly expected?: number;
}

/** Type, sector, chain, and the status that it is to be answered with. */
type BadRequest = readonly [number, number, readonly ChainPart[], number];

export interface GuestOptions {
  readonly random: SeededRandom;
  readonly model: GuestModel;
  readonly queues: number;
  /** Where requests meet, most of the time. */
  readonly hotSectors: readonly (readonly [number, number])[];
  readonly stripeSectors: number;
  readonly isEnciphered: boolean;
  /** Answers may be errors. */
  readonly mayFail: () => boolean;
  readonly isDiscardOffered: boolean;
  readonly isWriteback: boolean;
  readonly firstValue: number;
}

export class Guest implements Disposable {
  readonly queues: readonly GuestQueue[];
  readonly answers = { ok: 0, failed: 0, bad: 0 };
  sectors: number;
  /** As the guest has set it. */
  isWriteback: boolean;
  readonly fd: number;
  readonly sizeBytes: number;
  readonly #options: GuestOptions;
  readonly #random: SeededRandom;
  readonly #address: number;
  readonly #bytes: Uint8Array;
  readonly #requests: (Request | undefined)[][];
  #nextValue: number;
  /** Counts the times that somebody may have shown ends. */
  #looks = 0;

  constructor(options: GuestOptions, sectors: number) {
    this.#options = options;
    this.#random = options.random;
    this.sectors = sectors;
    this.isWriteback = options.isWriteback;
    this.#nextValue = options.firstValue;
    const shapes = Array.from({ length: options.queues }, () => this.#anyShape());
    this.sizeBytes = shapes.reduce((sum, shape) => sum + roundUp(queueBytes(shape)), 0);
    this.fd = createSharedMemory(this.sizeBytes);
    const { fd, sizeBytes } = this;
    this.#address = mapFile({ fd, offsetBytes: 0, lengthBytes: sizeBytes, writable: true });
    this.#bytes = new Uint8Array(viewOf(this.#address, sizeBytes));
    let base = 0;
    const memory = { bytes: this.#bytes, guestAddress: (at: number) => this.guestAddress(at) };
    this.queues = shapes.map((shape) => {
      const queue = new GuestQueue(shape, memory, base);
      base += roundUp(queueBytes(shape));
      return queue;
    });
    this.#requests = shapes.map(() => []);
  }

  get nextValue(): number {
    return this.#nextValue;
  }

  get underWay(): number {
    return this.#requests.reduce((sum, queue) => sum + queue.filter(Boolean).length, 0);
  }

  get region(): MemoryRegion {
    return {
      guestAddress: GUEST_BASE,
      sizeBytes: this.sizeBytes,
      userAddress: USER_BASE,
      mmapOffset: 0,
    };
  }

  guestAddress(offset: number): number {
    return GUEST_BASE + offset;
  }

  /** Sends a request, or shows what was made ready, or looks for answers. */
  act(): void {
    const index = this.#random.below(this.queues.length);
    const queue = this.queues[index];
    if (queue === undefined) {
      return;
    }
    const choice = this.#random.below(8);
    if (choice < 4) {
      this.#send(index, queue);
    } else if (choice < 6) {
      queue.show();
    } else if (choice === 6 && this.#random.oneIn(4)) {
      this.#reap(index, queue); // it polls
    }
    if (queue.takeCall()) {
      this.#reap(index, queue);
    }
  }

  /** Shows everything, and takes answers where it was called. */
  settle(): void {
    for (const [index, queue] of this.queues.entries()) {
      if (queue.hasHidden) {
        queue.show();
      }
      if (queue.takeCall()) {
        this.#reap(index, queue);
      }
    }
  }

  /** Reads all of the disk, part after part. False when a queue is full. */
  readPart(first: number): number {
    const queue = this.queues[0];
    const slot = queue?.freeSlot() ?? -1;
    if (queue === undefined || slot < 0) {
      return first;
    }
    const count = Math.min(SECTORS_MAX, this.sectors - first);
    this.#start(0, queue, slot, "read", first, count);
    queue.show();
    return first + count;
  }

  flush(): void {
    const queue = this.queues[0];
    const slot = queue?.freeSlot() ?? -1;
    if (queue !== undefined && slot >= 0) {
      this.#start(0, queue, slot, "flush", 0, 0);
      queue.show();
    }
  }

  /** For what a front end makes durable in the guest's name. */
  flushPoint(): FlushPoint {
    return this.#options.model.flushPoint();
  }

  endFlush(point: FlushPoint, isOk: boolean): void {
    this.#options.model.endFlush(point, isOk, this.#looks);
  }

  /** Notes which ends were shown before which: the guest takes them in any order. Call behind every turn of a thread. */
  look(): void {
    this.#looks += 1;
    for (const [index, queue] of this.queues.entries()) {
      for (const slot of queue.shown()) {
        const request = this.#requests[index]?.[slot];
        if (request !== undefined) {
          request.shownAt = this.#looks;
        }
        if (request?.write !== undefined) {
          request.write.shownAt = this.#looks;
        }
      }
    }
  }

  /** Whatever is under way is answered to nobody. */
  forget(index: number): void {
    for (const request of this.#requests[index] ?? []) {
      if (request?.write !== undefined) {
        this.#options.model.abandon(request.write);
      }
      if (request?.read !== undefined) {
        this.#options.model.endRead(request.read, undefined);
      }
      if (request?.flush !== undefined) {
        this.#options.model.abandonFlush(request.flush);
      }
    }
    this.#requests[index] = [];
    this.queues[index]?.reset();
  }

  reapAll(): void {
    for (const [index, queue] of this.queues.entries()) {
      this.#reap(index, queue);
    }
  }

  describe(): string {
    return this.#requests
      .flatMap((queue, i) =>
        queue.flatMap((request, slot) =>
          request === undefined
            ? []
            : [`queue ${i} slot ${slot}: ${request.kind} ${request.first}+${request.count}`],
        ),
      )
      .join(", ");
  }

  [Symbol.dispose](): void {
    unmap(this.#address, this.sizeBytes);
    closeSync(this.fd);
    for (const { kickFd, callFd } of this.queues) {
      for (const fd of [kickFd, callFd].filter((each) => each >= 0)) {
        closeSync(fd);
      }
    }
  }

  // --- internal: requests ---

  #anyShape(): QueueShape {
    const slots = this.#random.pick([1, 2, 4, 8]);
    const isIndirect = this.#random.oneIn(2);
    return {
      entries: isIndirect ? slots * this.#random.pick([1, 2]) : slots * 8,
      slots,
      isIndirect,
    };
  }

  #send(index: number, queue: GuestQueue): void {
    const slot = queue.freeSlot();
    if (slot < 0) {
      return;
    }
    const kinds = ["read", "read", "read", "write", "write", "write", "flush", "zero"] as const;
    const more = ["discard", "id", "bad"] as const;
    const kind = this.#random.oneIn(8) ? this.#random.pick(more) : this.#random.pick(kinds);
    if (kind === "bad") {
      this.#sendBad(index, queue, slot);
      return;
    }
    const [first, count] = this.#anyRange();
    const isChange = kind === "write" || kind === "zero" || kind === "discard";
    if (isChange && !this.#random.oneIn(8) && this.#isRacing(first, count)) {
      return; // what two of them leave is mostly the guest's own doing
    }
    this.#start(index, queue, slot, kind, first, count);
  }

  #start(
    index: number,
    queue: GuestQueue,
    slot: number,
    kind: Exclude<Request["kind"], "bad">,
    first: number,
    count: number,
  ): void {
    const { model, isEnciphered } = this.#options;
    const data = queue.dataOffset(slot);
    const range = { first, count };
    const header = queue.header(slot);
    const status = queue.status(slot);
    let request: Request;
    let chain: readonly ChainPart[] = [header, status];
    let type: number = REQUEST_TYPE.FLUSH;
    switch (kind) {
      case "read":
        type = REQUEST_TYPE.IN;
        this.#bytes.fill(0xdb, data, data + count * SECTOR);
        request = { kind, ...range, read: model.beginRead(first, count) };
        chain = [header, ...this.#cut(data, count * SECTOR, true), status];
        break;
      case "write": {
        type = REQUEST_TYPE.OUT;
        const value = this.#nextValue;
        this.#nextValue += 1;
        fillContent(this.#words(data, count), first, count, value);
        const write = model.beginWrite({ ...range, values: [value], isDiscard: false });
        request = { kind, ...range, write };
        chain = [header, ...this.#cut(data, count * SECTOR, false), status];
        break;
      }
      case "flush":
        request = { kind, first: 0, count: 0, flush: model.flushPoint() };
        break;
      case "id":
        type = REQUEST_TYPE.GET_ID;
        request = { kind, first: 0, count: 0 };
        chain = [header, { offset: data, bytes: 20, isWritable: true }, status];
        break;
      default: {
        const isDiscard = kind === "discard";
        type = isDiscard ? REQUEST_TYPE.DISCARD : REQUEST_TYPE.WRITE_ZEROES;
        const flags = !isDiscard && this.#random.oneIn(2) ? SEGMENT_UNMAP : 0;
        this.#bytes.set(encodeRangeSegment({ sector: first, sectorCount: count, flags }), data);
        const freed = isEnciphered ? [Content.zeros, Content.other] : [Content.zeros];
        const values = isDiscard ? freed : [Content.zeros];
        request = { kind, ...range, write: model.beginWrite({ ...range, values, isDiscard }) };
        chain = [header, { offset: data, bytes: 16, isWritable: false }, status];
      }
    }
    const sector = kind === "read" || kind === "write" ? first : 0;
    this.#put(index, slot, request);
    queue.add(slot, type, sector, chain);
  }

  #sendBad(index: number, queue: GuestQueue, slot: number): void {
    const header = queue.header(slot);
    const status = queue.status(slot);
    const data = { offset: queue.dataOffset(slot), bytes: SECTOR, isWritable: true };
    const { IN } = REQUEST_TYPE;
    const { IOERR, UNSUPPORTED } = STATUS;
    const [type, sector, chain, expected] = this.#random.pick<BadRequest>([
      [UNKNOWN_TYPE, 0, [header, data, status], UNSUPPORTED],
      [IN, this.sectors + 1_000_000, [header, data, status], IOERR],
      [IN, 0, [header, { ...data, bytes: 100 }, status], IOERR],
      [IN, 0, [header, { ...data, offset: NOWHERE }, status], IOERR],
      [IN, 0, [header], STATUS_UNSET],
      [IN, 0, [{ ...header, bytes: 7 }, status], IOERR],
      [REQUEST_TYPE.OUT, 0, [header, data, status], IOERR],
    ]);
    this.#put(index, slot, { kind: "bad", first: 0, count: 0, expected });
    queue.add(slot, type, sector, chain);
  }

  #put(index: number, slot: number, request: Request): void {
    const requests = this.#requests[index];
    if (requests !== undefined) {
      requests[slot] = request;
    }
  }

  #isRacing(first: number, count: number): boolean {
    return this.#requests.some((queue) =>
      queue.some(
        (other) =>
          other?.write !== undefined &&
          other.first < first + count &&
          first < other.first + other.count,
      ),
    );
  }

  /** Whole stripes, and parts of them; often where others are as well. */
  #anyRange(): readonly [number, number] {
    const random = this.#random;
    const { hotSectors, stripeSectors } = this.#options;
    const [hot, length] = hotSectors[random.below(hotSectors.length)] ?? [0, this.sectors];
    const isHot = !random.oneIn(8);
    const place = isHot ? hot + random.below(length) : random.below(this.sectors);
    if (random.oneIn(3)) {
      const first = Math.floor(place / stripeSectors) * stripeSectors;
      const stripes = random.pick([1, 1, 2, 3]);
      const count = Math.min(stripes * stripeSectors, SECTORS_MAX, this.sectors - first);
      return [first, count];
    }
    const count = random.pick([1, 1, 2, 3, 8, 8, 17, SECTORS_MAX]);
    return [place, Math.min(count, this.sectors - place)];
  }

  #cut(offset: number, bytes: number, isWritable: boolean): readonly ChainPart[] {
    const parts: ChainPart[] = [];
    let done = 0;
    const pieces = this.#random.pick([1, 1, 2, 3, 5]);
    const unit = this.#random.pick([SECTOR, SECTOR, 1]);
    while (parts.length < pieces - 1 && bytes - done > unit) {
      const most = Math.floor((bytes - done - 1) / unit);
      const part = unit * this.#random.between(1, Math.max(1, most));
      parts.push({ offset: offset + done, bytes: part, isWritable });
      done += part;
    }
    return [...parts, { offset: offset + done, bytes: bytes - done, isWritable }];
  }

  // --- internal: answers ---

  #reap(index: number, queue: GuestQueue): void {
    for (const ended of queue.reap()) {
      const request = this.#requests[index]?.[ended.slot];
      if (request === undefined) {
        throw new Error(`queue ${index} slot ${ended.slot} was answered and is not under way`);
      }
      const requests = this.#requests[index];
      if (requests !== undefined) {
        requests[ended.slot] = undefined;
      }
      this.#check(queue, request, ended);
    }
  }

  #check(queue: GuestQueue, request: Request, ended: EndedSlot): void {
    const { model, mayFail, isDiscardOffered } = this.#options;
    const { kind, first, count } = request;
    const { status, slot } = ended;
    const what = `${kind} ${first}+${count}`;
    if (kind === "bad") {
      this.answers.bad += 1;
      this.#expect(what, status === request.expected, ended);
      return;
    }
    const isOk = status === STATUS.OK;
    this.answers[isOk ? "ok" : "failed"] += 1;
    const isRefused = kind === "discard" && (status === STATUS.UNSUPPORTED || !isDiscardOffered);
    this.#expect(what, isOk || isRefused || (status === STATUS.IOERR && mayFail()), ended);
    if (request.write !== undefined) {
      model.endWrite(request.write, isOk, !this.isWriteback);
    } else if (request.flush !== undefined) {
      model.endFlush(request.flush, isOk, request.shownAt ?? this.#looks);
    } else if (kind === "id" && isOk) {
      this.#checkId(queue.dataOffset(slot), ended);
    } else if (request.read !== undefined) {
      this.#checkRead(request.read, queue.dataOffset(slot), ended);
    }
  }

  #checkId(data: number, ended: EndedSlot): void {
    const text = new TextDecoder().decode(this.#bytes.slice(data, data + DEVICE_ID.length));
    this.#expect("id", text === DEVICE_ID, ended);
  }

  #checkRead(read: GuestRead, data: number, ended: EndedSlot): void {
    const { model } = this.#options;
    if (ended.status !== STATUS.OK) {
      model.endRead(read, undefined);
      return;
    }
    this.#expect("read", ended.writtenBytes === read.count * SECTOR + 1, ended);
    const words = this.#words(data, read.count);
    const values = read.visible.map((_, i) => contentAt(words, (i * SECTOR) / 4, read.first + i));
    model.endRead(read, values);
  }

  #expect(what: string, isRight: boolean, { status, writtenBytes }: EndedSlot): void {
    if (!isRight) {
      throw new Error(`${what} was answered with status ${status} and ${writtenBytes} bytes`);
    }
  }

  #words(offset: number, sectors: number): Int32Array {
    const { buffer, byteOffset } = this.#bytes;
    return new Int32Array(buffer, byteOffset + offset, (sectors * SECTOR) / 4);
  }
}

function roundUp(bytes: number): number {
  return Math.ceil(bytes / 4096) * 4096;
}
