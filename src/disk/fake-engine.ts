/**
 * An engine for tests: work is done by plain system calls, but only when the test says so, in the order
 * it says, and with the faults it asks for. It holds its user to the rules of direct I/O and of
 * registered buffers, and to the room it announced.
 */
import { assert } from "../errors.ts";
import {
  allocateFile,
  FALLOC_FL_PUNCH_HOLE,
  FALLOC_FL_ZERO_RANGE,
  readFileAt,
  readVectorAt,
  syncFileData,
  writeFileAt,
  writeVectorAt,
} from "../ffi/file.ts";
import { viewOf } from "../ffi/memory.ts";
import type { IoEngine } from "./io-engine.ts";

/** One prepared entry. */
export interface FakeWork {
  readonly kind: "read" | "write" | "sync" | "allocate";
  readonly id: number;
  readonly offset: number;
  readonly bytes: number;
  readonly isWriteThrough: boolean;
  /** Of fallocate(2). */
  readonly mode?: number;
}

/** Of each piece of work: undefined for none, a negative errno, or fewer bytes than asked for. */
type FakeFault = (work: FakeWork) => number | undefined;

export interface FakeEngineOptions {
  readonly fd: number;
  readonly requestsMax: number;
  /** Smallest unit of offset and length. */
  readonly blockBytes: number;
  readonly memoryAlignBytes: number;
  readonly fault?: FakeFault;
  /** Modes of fallocate(2) that the file cannot. */
  readonly unsupportedModes?: number;
  readonly canRegister?: boolean;
}

interface Entry extends FakeWork {
  readonly run: (bytes: number) => number;
}

const EINVAL = -22;
const EOPNOTSUPP = -95;

export class FakeEngine implements IoEngine {
  readonly waitFd = -1;
  readonly kind = "sync";
  readonly #options: FakeEngineOptions;
  readonly #buffers = new Map<number, { readonly start: number; readonly end: number }>();
  #prepared: Entry[] = [];
  #underWay: Entry[] = [];
  #completed: { readonly id: number; readonly result: number }[] = [];
  #isWriteThrough = false;

  constructor(options: FakeEngineOptions) {
    this.#options = options;
  }

  /** Work that was handed over and not finished. */
  get underWay(): readonly FakeWork[] {
    return this.#underWay;
  }

  /** Carries out the work at `index` of `underWay`. */
  finish(index: number): void {
    const [entry] = this.#underWay.splice(index, 1);
    assert(entry !== undefined, "only work under way is finished");
    const fault = this.#options.fault?.(entry);
    if (fault !== undefined && fault < 0) {
      this.#completed.push({ id: entry.id, result: fault });
      return;
    }
    assert((fault ?? 0) <= entry.bytes, "a short transfer is shorter");
    this.#completed.push({ id: entry.id, result: entry.run(fault ?? entry.bytes) });
  }

  room(): number {
    return this.#options.requestsMax + 16 - this.#prepared.length;
  }

  prepareRead(id: number, offset: number, address: number, lengthBytes: number): void {
    this.#transfer("read", id, offset, address, lengthBytes);
  }

  prepareWrite(id: number, offset: number, address: number, lengthBytes: number): void {
    this.#transfer("write", id, offset, address, lengthBytes);
  }

  prepareReadVector(id: number, offset: number, vector: number, count: number): void {
    this.#vector("read", id, offset, vector, count);
  }

  prepareWriteVector(id: number, offset: number, vector: number, count: number): void {
    this.#vector("write", id, offset, vector, count);
  }

  prepareReadFixed(
    id: number,
    offset: number,
    address: number,
    lengthBytes: number,
    buffer: number,
  ): void {
    this.#checkBuffer(address, lengthBytes, buffer);
    this.#transfer("read", id, offset, address, lengthBytes);
  }

  prepareWriteFixed(
    id: number,
    offset: number,
    address: number,
    lengthBytes: number,
    buffer: number,
  ): void {
    this.#checkBuffer(address, lengthBytes, buffer);
    this.#transfer("write", id, offset, address, lengthBytes);
  }

  prepareSync(id: number): void {
    this.#prepare("sync", id, 0, 0, () => syncFileData(this.#options.fd));
  }

  prepareAllocate(id: number, mode: number, offset: number, lengthBytes: number): void {
    const { blockBytes } = this.#options;
    const isAligned = offset % blockBytes === 0 && lengthBytes % blockBytes === 0;
    const isSupported = (mode & (this.#options.unsupportedModes ?? 0)) === 0;
    const run = () => {
      if (!isAligned || !isSupported) {
        return isSupported ? EINVAL : EOPNOTSUPP;
      }
      return this.#allocate(mode, offset, lengthBytes);
    };
    this.#prepare("allocate", id, offset, lengthBytes, run, mode);
  }

  setWriteThrough(isWriteThrough: boolean): void {
    this.#isWriteThrough = isWriteThrough;
  }

  watch(): void {}
  unwatch(): void {}

  registerBuffer(buffer: number, address: number, lengthBytes: number): boolean {
    this.#buffers.set(buffer, { start: address, end: address + lengthBytes });
    return this.#options.canRegister ?? true;
  }

  submit(): void {
    this.#underWay.push(...this.#prepared);
    this.#prepared = [];
  }

  completions(): number {
    return this.#completed.length;
  }

  completedId(index: number): number {
    return this.#completed[index]?.id ?? -1;
  }

  completedResult(index: number): number {
    return this.#completed[index]?.result ?? EINVAL;
  }

  release(count: number): void {
    this.#completed = this.#completed.slice(count);
  }

  hasWork(): boolean {
    return this.#prepared.length > 0 || this.#completed.length > 0;
  }

  [Symbol.dispose](): void {
    this.#completed = [];
  }

  // --- internal ---

  #prepare(
    kind: FakeWork["kind"],
    id: number,
    offset: number,
    bytes: number,
    run: (bytes: number) => number,
    mode = 0,
  ): void {
    assert(this.room() > 0, "no more is prepared than there is room for");
    assert(
      ![...this.#prepared, ...this.#underWay].some((entry) => entry.id === id),
      "an id is under way once",
    );
    const isWriteThrough = this.#isWriteThrough;
    this.#prepared.push({ kind, id, offset, bytes, isWriteThrough, mode, run });
  }

  #transfer(
    kind: "read" | "write",
    id: number,
    offset: number,
    address: number,
    lengthBytes: number,
  ): void {
    const { fd, blockBytes, memoryAlignBytes } = this.#options;
    const isAligned =
      offset % blockBytes === 0 &&
      lengthBytes % blockBytes === 0 &&
      address % memoryAlignBytes === 0;
    this.#prepare(kind, id, offset, lengthBytes, (bytes) => {
      if (!isAligned) {
        return EINVAL;
      }
      const result =
        kind === "read"
          ? readFileAt(fd, offset, address, bytes)
          : writeFileAt(fd, offset, address, bytes, false);
      return result === 0 ? bytes : result;
    });
  }

  #vector(kind: "read" | "write", id: number, offset: number, vector: number, count: number): void {
    const { fd, blockBytes, memoryAlignBytes } = this.#options;
    const view = new DataView(viewOf(vector, count * 16));
    const parts = Array.from({ length: count }, (_, i) => ({
      address: Number(view.getBigUint64(i * 16, true)),
      bytes: Number(view.getBigUint64(i * 16 + 8, true)),
    }));
    const total = parts.reduce((sum, part) => sum + part.bytes, 0);
    const isAligned =
      offset % blockBytes === 0 &&
      parts.every((part) => part.bytes % blockBytes === 0 && part.address % memoryAlignBytes === 0);
    this.#prepare(kind, id, offset, total, (bytes) => {
      if (!isAligned || count > 1024) {
        return EINVAL;
      }
      if (bytes < total) {
        return bytes; // nothing is moved, which a short transfer may as well do
      }
      return kind === "read"
        ? readVectorAt(fd, offset, vector, count)
        : writeVectorAt(fd, offset, vector, count, false);
    });
  }

  /** Memory files cannot zero a range, so that is done by hand. */
  #allocate(mode: number, offset: number, lengthBytes: number): number {
    const { fd } = this.#options;
    if ((mode & FALLOC_FL_ZERO_RANGE) === 0) {
      return allocateFile(fd, mode, offset, lengthBytes);
    }
    return allocateFile(
      fd,
      (mode & ~FALLOC_FL_ZERO_RANGE) | FALLOC_FL_PUNCH_HOLE,
      offset,
      lengthBytes,
    );
  }

  #checkBuffer(address: number, lengthBytes: number, buffer: number): void {
    const range = this.#buffers.get(buffer);
    assert(range !== undefined && (this.#options.canRegister ?? true), "the buffer is registered");
    assert(
      address >= range.start && address + lengthBytes <= range.end,
      "fixed I/O stays inside its registered buffer",
    );
  }
}
