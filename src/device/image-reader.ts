/**
 * Reads that a queue takes from the raw image itself, at the same offset as on the disk: a small executor of its
 * own over the slots of the queue's requests. The image is open as long as a stripe is unfetched; what was read
 * later is not to be used, because the image may be another file by then.
 */

import { FlushGroup } from "../disk/flush-group.ts";
import type { IoEngine } from "../disk/io-engine.ts";
import { RequestExecutor } from "../disk/request-executor.ts";
import type { RequestTable } from "../disk/request-table.ts";
import { SECTOR_BYTES } from "../formats/virtio-blk.ts";
import type { ImageDescription } from "./stripe-description.ts";

/** Reads that find no buffer wait for one: a queue has few of them at a time. */
const BUFFER_LIMIT_BYTES = 2 ** 20;

export class ImageReader implements Disposable {
  readonly #engine: IoEngine;
  readonly #executor: RequestExecutor;
  #underWay = 0;

  /** @param engine of the image alone; the reader disposes of it */
  constructor(image: ImageDescription, engine: IoEngine, requests: RequestTable) {
    this.#engine = engine;
    this.#executor = new RequestExecutor({
      engine,
      disk: {
        fd: image.fd,
        sectors: Math.floor(image.sizeBytes / SECTOR_BYTES),
        blockBytes: image.blockBytes,
        isDirect: image.memoryAlignBytes > 1,
        memoryAlignBytes: image.memoryAlignBytes,
        isReadOnly: true,
        isDiscardOffered: false,
        isNull: false,
      },
      cipher: undefined,
      requests,
      bufferLimitBytes: BUFFER_LIMIT_BYTES,
      flush: { shared: new SharedArrayBuffer(FlushGroup.sharedBytes(1)), queue: 0, queues: 1 },
      wakeQueue: () => {},
      subBlockLock: new SharedArrayBuffer(4),
    });
  }

  /** Signalled when `advance` would bring something; -1 when all ends in the `advance` that it began in. */
  get waitFd(): number {
    return this.#engine.waitFd;
  }

  get isIdle(): boolean {
    return this.#underWay === 0;
  }

  /** Slots whose reads have ended, with their outcomes in the table; the caller empties it. */
  get finished(): Int32Array {
    return this.#executor.finished;
  }

  admit(slot: number): void {
    this.#underWay += 1;
    this.#executor.admit(slot);
  }

  /** Hands over what was admitted and takes what has ended. Returns how many slots are in `finished`. */
  advance(): number {
    const engine = this.#engine;
    const executor = this.#executor;
    executor.flushBatch();
    while (engine.hasWork()) {
      engine.submit(0);
      const count = engine.completions();
      for (let i = 0; i < count; i++) {
        executor.complete(engine.completedId(i), engine.completedResult(i));
      }
      engine.release(count);
    }
    const finished = executor.finishedCount;
    executor.finishedCount = 0;
    this.#underWay -= finished;
    return finished;
  }

  /** With reads under way the kernel may still write to the buffers: they stay. */
  [Symbol.dispose](): void {
    this.#engine[Symbol.dispose]();
    if (this.isIdle) {
      this.#executor.releaseMemory();
    }
  }
}
