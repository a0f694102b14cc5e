/**
 * A request executor over a fake engine, and a plain model of its disk: an array of bytes. Requests are
 * admitted, their I/O finishes in any order with any faults, and every outcome and every byte is compared
 * with the model's.
 */
import { expect } from "bun:test";
import { closeSync } from "node:fs";
import { FakeEngine, type FakeWork } from "../../src/disk/fake-engine.ts";
import { FlushGroup } from "../../src/disk/flush-group.ts";
import { RequestExecutor, type RequestRunner } from "../../src/disk/request-executor.ts";
import { Operation, Outcome, RequestTable } from "../../src/disk/request-table.ts";
import type { SectorCipher } from "../../src/disk/sector-copy.ts";
import { SlotWaits, Wait } from "../../src/disk/slot-waits.ts";
import { Arena } from "../../src/ffi/arena.ts";
import { readFileAt, writeFileAt } from "../../src/ffi/file.ts";
import { createSharedMemory, viewOf } from "../../src/ffi/memory.ts";
import { encodeRangeSegment, type RangeSegment } from "../../src/formats/virtio-blk.ts";

export const SECTOR = 512;
/** Memory of one request's segments. */
const GUEST_BYTES_PER_SLOT = 2 ** 21;

export interface WorldOptions {
  readonly slots: number;
  readonly segmentsPerSlot: number;
  readonly sectors: number;
  readonly blockBytes: number;
  readonly isEnciphered: boolean;
  readonly bufferLimitBytes?: number;
  readonly isDirect?: boolean;
  readonly memoryAlignBytes?: number;
  readonly canRegister?: boolean;
  readonly unsupportedModes?: number;
  readonly isReadOnly?: boolean;
  readonly isDiscardOffered?: boolean;
  /** Requests have one segment each, in which I/O and cipher work. */
  readonly isMemoryOwn?: boolean | undefined;
  /** What requests go to instead of the executor itself. */
  readonly runner?: (world: ExecutorWorld) => RequestRunner;
}

export interface WorldRequest {
  readonly operation: number;
  readonly sector: number;
  /** Lengths of the data segments. */
  readonly segments: readonly number[];
  /** Bytes between two segments, and before the first. */
  readonly gapBytes?: number;
  readonly data?: Uint8Array;
  readonly ranges?: readonly RangeSegment[];
  /** Of a write that is finished once it is durable. */
  readonly isDurable?: boolean;
}

export interface Finished {
  readonly slot: number;
  readonly outcome: number;
  readonly request: WorldRequest;
  /** The request's memory, segment after segment. */
  readonly data: Uint8Array;
}

/** XOR with the sector's number: wrong sectors and forgotten passes show. */
class XorCipher implements SectorCipher {
  /** Sectors whose passes fail. */
  readonly broken = new Set<number>();

  encrypt(sector: number, count: number, source: number, target: number): number {
    const from = new Uint8Array(viewOf(source, count * SECTOR));
    const to = new Uint8Array(viewOf(target, count * SECTOR));
    let result = 0;
    for (let i = 0; i < count; i++) {
      result = this.broken.has(sector + i) ? -5 : result;
      xorSector(from, to, i, sector + i);
    }
    return result;
  }

  decrypt(sector: number, count: number, source: number, target: number): number {
    return this.encrypt(sector, count, source, target);
  }
}

export class ExecutorWorld implements Disposable {
  readonly options: WorldOptions;
  readonly fd: number;
  readonly engine: FakeEngine;
  readonly requests: RequestTable;
  readonly executor: RequestExecutor;
  readonly runner: RequestRunner;
  readonly waits: SlotWaits;
  readonly cipher = new XorCipher();
  fault: (work: FakeWork) => number | undefined = () => undefined;
  /** What the disk answered, of requests that failed for it. */
  readonly failures: { readonly operation: number; readonly result: number }[] = [];
  readonly #guest: Arena;
  readonly #bytes: Uint8Array;
  readonly #io: Arena;
  readonly #bySlot = new Map<number, WorldRequest>();

  constructor(options: WorldOptions) {
    this.options = options;
    const { slots, blockBytes } = options;
    const memoryAlignBytes = options.memoryAlignBytes ?? 512;
    this.fd = createSharedMemory(options.sectors * SECTOR);
    this.engine = new FakeEngine({
      fd: this.fd,
      requestsMax: slots,
      blockBytes,
      memoryAlignBytes,
      fault: (work) => this.fault(work),
      canRegister: options.canRegister ?? true,
      unsupportedModes: options.unsupportedModes ?? 0,
    });
    this.requests = new RequestTable(slots, options.segmentsPerSlot);
    this.waits = SlotWaits.unseen(slots);
    this.executor = new RequestExecutor({
      engine: this.engine,
      disk: {
        fd: this.fd,
        sectors: options.sectors,
        blockBytes,
        isDirect: options.isDirect ?? true,
        memoryAlignBytes,
        isReadOnly: options.isReadOnly ?? false,
        isDiscardOffered: options.isDiscardOffered ?? true,
        isNull: false,
      },
      cipher: options.isEnciphered ? this.cipher : undefined,
      requests: this.requests,
      bufferLimitBytes: options.bufferLimitBytes ?? 2 ** 20,
      flush: { shared: new SharedArrayBuffer(FlushGroup.sharedBytes(1)), queue: 0, queues: 1 },
      wakeQueue: () => {},
      noteFailure: (slot, result) => {
        this.failures.push({ operation: this.requests.operation[slot] ?? -1, result });
      },
      waits: this.waits,
      subBlockLock: new SharedArrayBuffer(4),
      ownBuffers: options.isMemoryOwn ? new Int32Array(slots).fill(-1) : undefined,
    });
    this.runner = options.runner?.(this) ?? this.executor;
    this.#guest = new Arena(slots * GUEST_BYTES_PER_SLOT);
    this.#bytes = new Uint8Array(viewOf(this.#guest.address, this.#guest.lengthBytes));
    this.#io = new Arena(options.sectors * SECTOR);
  }

  get inFlight(): ReadonlyMap<number, WorldRequest> {
    return this.#bySlot;
  }

  /** Admits a request: its slot, or -1 when none is free. */
  admit(request: WorldRequest): number {
    const { requests } = this;
    const segments = request.ranges === undefined ? request.segments : splitRanges(request);
    this.runner.beforeTaking();
    const slot = requests.take(segments.length);
    if (slot < 0) {
      return -1;
    }
    const place = requests.segmentStart[slot] ?? 0;
    let at = slot * GUEST_BYTES_PER_SLOT;
    segments.forEach((length, i) => {
      at += request.gapBytes ?? 0;
      requests.segmentAddress[place + i] = this.#guest.address + at;
      requests.segmentLength[place + i] = length;
      at += length;
    });
    requests.operation[slot] = request.operation;
    requests.isDurable[slot] = request.isDurable === true ? 1 : 0;
    requests.sector[slot] = request.sector;
    requests.bytes[slot] = segments.reduce((sum, length) => sum + length, 0);
    this.#write(slot, request.ranges === undefined ? request.data : encodeRanges(request.ranges));
    this.#bySlot.set(slot, request);
    this.runner.admit(slot);
    return slot;
  }

  /** Ends a batch and hands its work over, as a turn of a queue does. */
  turn(): readonly Finished[] {
    this.runner.flushBatch();
    this.engine.submit();
    return this.#collect();
  }

  /** Finishes one piece of work and handles its completion. */
  finishWork(index: number): readonly Finished[] {
    this.engine.finish(index);
    const count = this.engine.completions();
    for (let i = 0; i < count; i++) {
      this.runner.complete(this.engine.completedId(i), this.engine.completedResult(i));
    }
    this.engine.release(count);
    return [...this.#collect(), ...this.turn()];
  }

  /** Runs until nothing is under way. */
  drain(): readonly Finished[] {
    const finished = [...this.turn()];
    while (this.engine.underWay.length > 0) {
      finished.push(...this.finishWork(0));
    }
    return finished;
  }

  /** The guest writes to the memory of a request that is under way. */
  overwrite(slot: number, data: Uint8Array): void {
    this.#write(slot, data);
  }

  /** What the disk holds, deciphered. */
  contents(): Uint8Array {
    const { sectors } = this.options;
    expect(readFileAt(this.fd, 0, this.#io.address, sectors * SECTOR)).toBe(0);
    const bytes = new Uint8Array(viewOf(this.#io.address, sectors * SECTOR)).slice();
    return this.options.isEnciphered ? xored(bytes) : bytes;
  }

  /** Sets what the disk holds. */
  fill(plain: Uint8Array): void {
    const bytes = this.options.isEnciphered ? xored(plain.slice()) : plain;
    new Uint8Array(viewOf(this.#io.address, bytes.length)).set(bytes);
    expect(writeFileAt(this.fd, 0, this.#io.address, bytes.length, false)).toBe(0);
  }

  [Symbol.dispose](): void {
    this.runner[Symbol.dispose]();
    this.engine[Symbol.dispose]();
    this.#guest[Symbol.dispose]();
    this.#io[Symbol.dispose]();
    closeSync(this.fd);
  }

  // --- internal ---

  #collect(): readonly Finished[] {
    const { runner, requests } = this;
    runner.beforeAnswers();
    const slots = [...runner.finished.subarray(0, runner.finishedCount)];
    runner.finishedCount = 0;
    const ended = slots.map((slot) => {
      const request = this.#bySlot.get(slot);
      if (request === undefined) {
        throw new Error(`slot ${slot} finished without a request`);
      }
      if (this.waits.wait(slot) !== Wait.none) {
        throw new Error(
          `slot ${slot} finished and is still told to wait: so would the next one be`,
        );
      }
      const data = this.#read(slot);
      this.#bySlot.delete(slot);
      requests.give(slot);
      return { slot, outcome: requests.outcome[slot] ?? Outcome.ioError, request, data };
    });
    runner.afterAnswers();
    return ended;
  }

  #write(slot: number, data: Uint8Array | undefined): void {
    let done = 0;
    for (const [start, length] of this.#segments(slot)) {
      const part = data?.subarray(done, done + length) ?? new Uint8Array(length).fill(0xdb);
      this.#bytes.set(part, start);
      done += length;
    }
  }

  #read(slot: number): Uint8Array {
    const data = new Uint8Array(this.requests.bytes[slot] ?? 0);
    let done = 0;
    for (const [start, length] of this.#segments(slot)) {
      data.set(this.#bytes.subarray(start, start + length), done);
      done += length;
    }
    return data;
  }

  /** Offset in the guest's memory and length of each segment. */
  #segments(slot: number): readonly (readonly [number, number])[] {
    const { requests } = this;
    const place = requests.segmentStart[slot] ?? 0;
    return Array.from({ length: requests.segmentCount[slot] ?? 0 }, (_, i) => [
      (requests.segmentAddress[place + i] ?? 0) - this.#guest.address,
      requests.segmentLength[place + i] ?? 0,
    ]);
  }
}

// --- internal ---

function xorSector(from: Uint8Array, to: Uint8Array, index: number, sector: number): void {
  const mask = (sector * 37 + 11) & 0xff;
  for (let i = index * SECTOR; i < (index + 1) * SECTOR; i++) {
    to[i] = (from[i] ?? 0) ^ mask;
  }
}

function xored(bytes: Uint8Array): Uint8Array {
  for (let sector = 0; sector < bytes.length / SECTOR; sector++) {
    xorSector(bytes, bytes, sector, sector);
  }
  return bytes;
}

function encodeRanges(ranges: readonly RangeSegment[]): Uint8Array {
  const bytes = new Uint8Array(ranges.length * 16);
  ranges.forEach((range, i) => {
    bytes.set(encodeRangeSegment(range), i * 16);
  });
  return bytes;
}

/** A list of ranges in the segments the request asks for, the last one taking the rest. */
function splitRanges(request: WorldRequest): readonly number[] {
  const total = (request.ranges?.length ?? 0) * 16;
  const segments: number[] = [];
  let left = total;
  for (const length of request.segments) {
    if (length < left) {
      segments.push(length);
      left -= length;
    }
  }
  return [...segments, left];
}

export { Operation, Outcome };
