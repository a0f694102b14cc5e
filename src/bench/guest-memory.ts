/**
 * Memory that a backend shares with us as if we were a virtual machine: one memfd, one region. Its guest
 * addresses differ from our own on purpose, so that a backend that mixes them up is found out.
 */
import { assert } from "../errors.ts";
import { createSharedMemory, mapFile, unmap, viewOf } from "../ffi/memory.ts";
import { closeDescriptor } from "../ffi/socket.ts";
import type { MemoryRegion } from "../formats/vhost-user.ts";
import { DESCRIPTOR_BYTES, ringLayout } from "../formats/virtio-ring.ts";

const GUEST_BASE = 2 ** 32;
const PAGE = 4096;

export class GuestMemory implements Disposable {
  readonly fd: number;
  readonly address: number;
  readonly lengthBytes: number;
  #isDisposed = false;

  /** @throws UbiError E_MEMORY */
  constructor(lengthBytes: number) {
    this.lengthBytes = roundUp(lengthBytes, PAGE);
    this.fd = createSharedMemory(this.lengthBytes);
    this.address = mapFile({
      fd: this.fd,
      offsetBytes: 0,
      lengthBytes: this.lengthBytes,
      writable: true,
    });
  }

  get region(): MemoryRegion {
    return {
      guestAddress: GUEST_BASE,
      sizeBytes: this.lengthBytes,
      userAddress: this.address,
      mmapOffset: 0,
    };
  }

  guestAddress(offset: number): number {
    return GUEST_BASE + offset;
  }

  view(offset: number, lengthBytes: number): ArrayBuffer {
    assert(offset + lengthBytes <= this.lengthBytes, "a view lies in the guest's memory");
    return viewOf(this.address + offset, lengthBytes);
  }

  [Symbol.dispose](): void {
    if (!this.#isDisposed) {
      this.#isDisposed = true;
      unmap(this.address, this.lengthBytes);
      closeDescriptor(this.fd);
    }
  }
}

/** What one queue needs. */
export interface QueueShape {
  /** Entries of the ring, a power of two unless it is packed. */
  readonly entries: number;
  /** Requests in flight at most. */
  readonly depth: number;
  /** Data descriptors of a request at most. */
  readonly segmentsMax: number;
  /** Data of a request at most, bytes. */
  readonly dataBytesMax: number;
  readonly isIndirect: boolean;
  /** Of a packed ring; its areas are smaller than those of a split one, and are given as much room. */
  readonly isPacked: boolean;
}

/** Byte offsets in the memory of one queue; the data of slot `i` is at `data + i * slotBytes`. */
export interface QueueLayout {
  readonly descriptors: number;
  readonly available: number;
  readonly used: number;
  readonly headers: number;
  readonly statuses: number;
  readonly tables: number;
  readonly data: number;
  readonly slotBytes: number;
  readonly totalBytes: number;
}

/** Room in front of and behind a request's data, for buffers at odd addresses. */
export const BUFFER_SHIFT_BYTES_MAX = 64;

/** Ring areas each on their own page, then headers, status bytes, indirect tables and data. */
export function layOutQueue(shape: QueueShape): QueueLayout {
  const ring = ringLayout(shape.entries);
  const tableBytes = shape.depth * descriptorsPerSlot(shape) * DESCRIPTOR_BYTES;
  const available = roundUp(ring.descriptorsBytes, PAGE);
  const used = available + roundUp(ring.availableBytes, PAGE);
  const headers = used + roundUp(ring.usedBytes, PAGE);
  const statuses = headers + roundUp(shape.depth * 16, PAGE);
  const tables = statuses + roundUp(shape.depth, PAGE);
  const data = tables + (shape.isIndirect || shape.isPacked ? roundUp(tableBytes, PAGE) : 0);
  const slotBytes = roundUp(shape.dataBytesMax + BUFFER_SHIFT_BYTES_MAX, PAGE);
  const totalBytes = data + shape.depth * slotBytes;
  return {
    descriptors: 0,
    available,
    used,
    headers,
    statuses,
    tables,
    data,
    slotBytes,
    totalBytes,
  };
}

/** Header, data and status of a request. */
export function descriptorsPerSlot(shape: QueueShape): number {
  return shape.segmentsMax + 2;
}

// --- internal ---

function roundUp(value: number, unit: number): number {
  return Math.ceil(value / unit) * unit;
}
