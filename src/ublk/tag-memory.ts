/**
 * The memory of a queue's tags: a request's data lies in the buffer of its tag, where the kernel puts what is
 * written and takes what was read, and where cipher and disk work.
 *
 *   data     | tag 0: I/O bytes | tag 1 | ...        one mapping, in huge pages where they can be had
 *   ranges   | tag 0: one range | tag 1 | ...        of DISCARD and WRITE_ZEROES
 *
 * The first of the data is registered with the ring, which saves the kernel looking up its pages.
 * Without a copy a tag has no data here: its buffer is a place in the ring's table that the kernel fills.
 */
import { Arena, type ArenaView } from "../ffi/arena.ts";
import { mapAnonymous, unmap } from "../ffi/memory.ts";
import { SEGMENT_BYTES } from "../formats/virtio-blk.ts";

/** What is registered at once, and of a queue in all: it takes memory from then on, used or not. */
const PIECE_BYTES_MAX = 64 * 2 ** 20;
const REGISTERED_BYTES_MAX = 256 * 2 ** 20;

export interface TagMemoryOptions {
  readonly depth: number;
  readonly ioBytes: number;
  readonly isZeroCopy: boolean;
  /** The first place of the ring's table that is the tags'. */
  readonly firstBuffer: number;
  /** Registers memory with the ring; false when the kernel refuses. */
  readonly register: (buffer: number, address: number, lengthBytes: number) => boolean;
}

export class TagMemory implements Disposable {
  /** By tag: the address of its data; with zero copy 0, where its registered buffer begins. */
  readonly address: Float64Array;
  /** By tag: its registered buffer, or -1. */
  readonly registeredBuffer: Int32Array;
  /** By tag, RANGE_WORDS each. */
  readonly ranges: ArenaView<Uint32Array>;
  readonly #arena: Arena;
  readonly #dataAddress: number;
  readonly #dataBytes: number;
  #isDisposed = false;

  static readonly RANGE_WORDS = SEGMENT_BYTES / 4;

  /** @throws UbiError E_MEMORY */
  constructor(options: TagMemoryOptions) {
    const { depth, ioBytes, isZeroCopy, firstBuffer } = options;
    this.address = new Float64Array(depth);
    this.registeredBuffer = new Int32Array(depth).fill(-1);
    this.#arena = new Arena(depth * SEGMENT_BYTES);
    this.ranges = this.#arena.words(depth * TagMemory.RANGE_WORDS);
    this.#dataBytes = TagMemory.dataBytes(options);
    this.#dataAddress = isZeroCopy ? 0 : mapAnonymous(this.#dataBytes);
    for (let tag = 0; tag < depth; tag++) {
      if (isZeroCopy) {
        this.registeredBuffer[tag] = firstBuffer + tag;
      } else {
        this.address[tag] = this.#dataAddress + tag * ioBytes;
      }
    }
    if (!isZeroCopy) {
      this.#registerAll(options);
    }
  }

  /** Of the requests' data. */
  static dataBytes({
    depth,
    ioBytes,
    isZeroCopy,
  }: Pick<TagMemoryOptions, "depth" | "ioBytes" | "isZeroCopy">): number {
    return isZeroCopy ? 0 : depth * ioBytes;
  }

  /** How many places of the ring's table the tags take. */
  static buffersOf(depth: number, isZeroCopy: boolean): number {
    return isZeroCopy ? depth : REGISTERED_BYTES_MAX / PIECE_BYTES_MAX;
  }

  /** Unmaps; the kernel clears the pages. No I/O may be under way. */
  [Symbol.dispose](): void {
    if (this.#isDisposed) {
      return;
    }
    this.#isDisposed = true;
    if (this.#dataBytes > 0) {
      unmap(this.#dataAddress, this.#dataBytes);
    }
    this.#arena[Symbol.dispose]();
  }

  // --- internal ---

  #registerAll({ depth, ioBytes, firstBuffer, register }: TagMemoryOptions): void {
    const tags = Math.floor(PIECE_BYTES_MAX / ioBytes);
    const end = Math.min(depth, Math.floor(REGISTERED_BYTES_MAX / ioBytes));
    for (let first = 0; first < end; first += tags) {
      const count = Math.min(tags, end - first);
      const buffer = firstBuffer + first / tags;
      if (register(buffer, this.#dataAddress + first * ioBytes, count * ioBytes)) {
        this.registeredBuffer.fill(buffer, first, first + count);
      }
    }
  }
}
