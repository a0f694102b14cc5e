/**
 * The memory in which the queues note their requests under way, from GET_INFLIGHT_FD to SET_INFLIGHT_FD:
 *
 *   front end                         this back end               the next one
 *   GET_INFLIGHT_FD  ------------->   makes it
 *                    <------------- fd
 *   SET_INFLIGHT_FD fd ----------->   maps it, the rings note
 *      keeps the fd                   is killed
 *   SET_INFLIGHT_FD fd ----------------------------------------->  maps it, the rings go on
 *
 * The guest's choice of the write cache is kept there too. It is read one way only: a guest that counts on durable
 * writes gets them, whatever this back end was told.
 */
import { fstatSync, writeSync } from "node:fs";
import { errnoText, UbiError } from "../errors.ts";
import { createSharedMemory, sealsOf, viewOf } from "../ffi/memory.ts";
import {
  packedRegionBytes,
  REGION_CACHE_OFF,
  REGION_FIELD,
  splitRegionBytes,
} from "../formats/inflight-region.ts";
import {
  decodeInflight,
  encodeInflight,
  type Inflight,
  REQUEST,
  requestName,
} from "../formats/vhost-user.ts";
import { RING_ENTRIES_MAX } from "../formats/virtio-ring.ts";
import type { LogLimiter } from "../log.ts";
import type { RingNotes } from "../virtio/split-ring.ts";
import { GuardedMapping } from "./guarded-mapping.ts";
import { oneDescriptor } from "./message-descriptors.ts";
import type { Vring } from "./vring.ts";
import type { WriteCache } from "./write-cache.ts";

interface KeeperOptions {
  readonly rings: readonly Pick<Vring, "stop" | "settle">[];
  readonly isNegotiated: () => boolean;
  readonly isPacked: () => boolean;
  readonly cache: WriteCache;
  readonly limiter: LogLimiter;
}

/** What a session has of it. */
export class InflightKeeper implements Disposable {
  readonly #options: KeeperOptions;
  #memory: InflightMemory | undefined;
  #replyDescriptors: readonly number[] = [];

  constructor(options: KeeperOptions) {
    this.#options = options;
  }

  /** The front end keeps what the queues note. */
  get isTracking(): boolean {
    return this.#memory !== undefined;
  }

  /** Where a queue notes its requests; undefined for one that the front end did not count. */
  notesOf(queue: number): RingNotes | undefined {
    return this.#memory?.notesOf(queue);
  }

  /** What a queue noted counts no more, and its next start is where the front end says. Nothing is in flight. */
  forget(queue: number): void {
    this.#memory?.forget(queue);
  }

  /** The write cache was turned on or off. */
  noteCache(): void {
    this.#memory?.noteCache(this.#options.cache.isWriteback);
  }

  /** GET_INFLIGHT_FD and SET_INFLIGHT_FD. @throws UbiError E_PROTOCOL, E_MEMORY */
  handle(
    request: number,
    payload: Uint8Array,
    descriptors: readonly number[],
  ): Uint8Array | undefined {
    if (!this.#options.isNegotiated()) {
      throw new UbiError("E_PROTOCOL", `${requestName(request)} was not negotiated`);
    }
    const inflight = decodeInflight(payload);
    checkShape(requestName(request), inflight, this.#options.rings.length);
    if (request === REQUEST.GET_INFLIGHT_FD) {
      return this.#give(inflight);
    }
    this.#replace(inflight, oneDescriptor(request, descriptors));
    return undefined;
  }

  /** What goes with the reply to GET_INFLIGHT_FD. The caller closes it. */
  takeReplyDescriptors(): readonly number[] {
    const descriptors = this.#replyDescriptors;
    this.#replyDescriptors = [];
    return descriptors;
  }

  /** Once no ring runs. */
  [Symbol.dispose](): void {
    this.#memory?.[Symbol.dispose]();
    this.#memory = undefined;
  }

  // --- internal ---

  #give({ queueCount, queueSize }: Inflight): Uint8Array {
    const mmapSizeBytes = queueCount * regionBytes(queueSize, this.#options.isPacked());
    const fd = createSharedMemory(mmapSizeBytes);
    this.#replyDescriptors = [fd];
    if (!this.#options.cache.isWriteback) {
      writeSync(fd, Uint8Array.of(REGION_CACHE_OFF), 0, 1, REGION_FIELD.features);
    }
    return encodeInflight({ mmapSizeBytes, mmapOffset: 0, queueCount, queueSize });
  }

  /** The last one counts. Rings that run go on with it. */
  #replace(inflight: Inflight, fd: number): void {
    const { rings, cache, limiter } = this.#options;
    for (const ring of rings) {
      ring.stop();
    }
    const memory = new InflightMemory(inflight, fd, this.#options.isPacked());
    this[Symbol.dispose]();
    this.#memory = memory;
    cache.isWriteback &&= !memory.isCacheOff;
    this.noteCache();
    for (const ring of rings) {
      ring.settle();
    }
    const { queueCount: queues, queueSize: entries } = inflight;
    const { isWriteback: writeback } = cache;
    limiter.info("requests in flight are tracked", { queues, entries, writeback });
  }
}

class InflightMemory implements Disposable {
  readonly #inflight: Inflight;
  readonly #mapping: GuardedMapping;
  readonly #regionBytes: number;
  /** Of the first region, the same place whatever kind of ring it was made for. */
  readonly #features: Uint8Array;

  /**
   * Maps what a front end kept. The descriptor stays the caller's.
   * @throws UbiError E_PROTOCOL when it cannot be what `InflightKeeper` gave, or a copy of that
   */
  constructor(inflight: Inflight, fd: number, isPacked: boolean) {
    const what = "SET_INFLIGHT_FD";
    const { mmapSizeBytes, mmapOffset, queueCount, queueSize } = inflight;
    this.#regionBytes = regionBytes(queueSize, isPacked);
    const neededBytes = queueCount * this.#regionBytes;
    if (mmapSizeBytes < neededBytes) {
      const queues = `${queueCount} queues of ${queueSize} entries`;
      throw refused(what, `${mmapSizeBytes} bytes, but ${queues} need ${neededBytes}`);
    }
    checkFile(what, fd, mmapOffset + neededBytes);
    if (mmapOffset % 8 !== 0) {
      throw refused(what, `offset ${mmapOffset} is no multiple of 8`);
    }
    this.#inflight = inflight;
    this.#mapping = mapKept(what, fd, mmapOffset, neededBytes);
    const { address } = this.#mapping;
    this.#features = new Uint8Array(viewOf(address + REGION_FIELD.features, 1));
  }

  get isCacheOff(): boolean {
    return (Atomics.load(this.#features, 0) & REGION_CACHE_OFF) !== 0;
  }

  noteCache(isWriteback: boolean): void {
    if (isWriteback) {
      Atomics.and(this.#features, 0, ~REGION_CACHE_OFF);
    } else {
      Atomics.or(this.#features, 0, REGION_CACHE_OFF);
    }
  }

  notesOf(queue: number): RingNotes | undefined {
    const { queueCount, queueSize } = this.#inflight;
    return queue < queueCount
      ? { address: this.#mapping.address + queue * this.#regionBytes, entries: queueSize }
      : undefined;
  }

  forget(queue: number): void {
    if (queue < this.#inflight.queueCount) {
      const address = this.#mapping.address + queue * this.#regionBytes;
      new Uint16Array(viewOf(address + REGION_FIELD.version, 2))[0] = 0;
    }
  }

  /** Once no ring uses it. */
  [Symbol.dispose](): void {
    this.#mapping[Symbol.dispose]();
  }
}

// --- internal ---

function regionBytes(entries: number, isPacked: boolean): number {
  return isPacked ? packedRegionBytes(entries) : splitRegionBytes(entries);
}

function checkShape(what: string, { queueCount, queueSize }: Inflight, queuesMax: number): void {
  if (queueCount < 1 || queueCount > queuesMax) {
    throw refused(what, `${queueCount} queues, but there are 1 to ${queuesMax}`);
  }
  if (queueSize < 1 || queueSize > RING_ENTRIES_MAX) {
    throw refused(what, `${queueSize} entries a queue are not from 1 to ${RING_ENTRIES_MAX}`);
  }
}

/** Only memory: a file of a disk, or of a program, could keep every request waiting. */
function checkFile(what: string, fd: number, endBytes: number): void {
  const seals = sealsOf(fd);
  if (seals < 0) {
    throw refused(what, `the descriptor is no shared memory: ${errnoText(seals)}`);
  }
  const { size } = fstatSync(fd);
  if (!Number.isSafeInteger(endBytes) || size < endBytes) {
    throw refused(what, `it ends at byte ${endBytes}, its memory at ${size}`);
  }
}

function mapKept(
  what: string,
  fd: number,
  offsetBytes: number,
  lengthBytes: number,
): GuardedMapping {
  try {
    return new GuardedMapping(fd, offsetBytes, lengthBytes);
  } catch (error) {
    throw error instanceof UbiError ? refused(what, error.message) : error;
  }
}

function refused(what: string, why: string): UbiError {
  return new UbiError("E_PROTOCOL", `${what}: ${why}`);
}
