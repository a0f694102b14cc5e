/**
 * The front end's memory in this process: maps the regions it passes, translates its user addresses for
 * ring set-up, and unmaps what is gone, but only when no queue can be using it any more.
 */
import { fstatSync, type Stats } from "node:fs";
import { errorText, UbiError } from "../errors.ts";
import {
  guardMemory,
  mapFile,
  PAGE_SIZE,
  pageSizeOf,
  unguardMemory,
  unmap,
} from "../ffi/memory.ts";
import { MEMORY_SLOTS_MAX, type MemoryRegion } from "../formats/vhost-user.ts";
import { GuestMemory } from "../virtio/guest-memory.ts";

interface MappedRegion extends MemoryRegion {
  readonly hostAddress: number;
  readonly mapAddress: number;
  readonly mapBytes: number;
}

export class MemoryMap {
  readonly #shared: Float64Array;
  #regions: readonly MappedRegion[] = [];
  #retired: readonly MappedRegion[] = [];

  /** @param shared where the queue workers find the table: `GuestMemory.sharedWords` doubles */
  constructor(shared: SharedArrayBuffer) {
    this.#shared = new Float64Array(shared);
  }

  get count(): number {
    return this.#regions.length;
  }

  /** Replaces all regions. The queues must take the table over before `unmapRetired`. */
  replace(regions: readonly MemoryRegion[], descriptors: readonly number[]): void {
    const mapped: MappedRegion[] = [];
    try {
      for (const [i, region] of regions.entries()) {
        mapped.push(mapRegion(region, descriptors[i] ?? -1, mapped));
      }
    } catch (error) {
      for (const region of mapped) {
        unmapRegion(region);
      }
      throw error;
    }
    this.#retired = [...this.#retired, ...this.#regions];
    this.#regions = mapped;
    this.#store();
  }

  add(region: MemoryRegion, descriptor: number): void {
    if (this.#regions.length >= MEMORY_SLOTS_MAX) {
      throw new UbiError("E_PROTOCOL", `more than ${MEMORY_SLOTS_MAX} memory regions`);
    }
    this.#regions = [...this.#regions, mapRegion(region, descriptor, this.#regions)];
    this.#store();
  }

  /** The queues must take the table over before `unmapRetired`. */
  remove(region: MemoryRegion): void {
    const found = this.#regions.find(
      (mapped) =>
        mapped.guestAddress === region.guestAddress &&
        mapped.userAddress === region.userAddress &&
        mapped.sizeBytes === region.sizeBytes,
    );
    if (found === undefined) {
      throw new UbiError("E_PROTOCOL", "REM_MEM_REG: there is no such memory region");
    }
    this.#retired = [...this.#retired, found];
    this.#regions = this.#regions.filter((mapped) => mapped !== found);
    this.#store();
  }

  /** Unmaps what `replace` and `remove` took out of the table. */
  unmapRetired(): void {
    for (const region of this.#retired) {
      unmapRegion(region);
    }
    this.#retired = [];
  }

  /**
   * The host address of `lengthBytes` at a user address of the front end.
   * @throws UbiError E_PROTOCOL when they do not lie in one region or are not aligned
   */
  translateUser(what: string, address: number, lengthBytes: number, align: number): number {
    for (const region of this.#regions) {
      const offset = address - region.userAddress;
      if (offset >= 0 && offset + lengthBytes <= region.sizeBytes) {
        const host = region.hostAddress + offset;
        if (host % align !== 0) {
          throw new UbiError("E_PROTOCOL", `the ${what} is not aligned to ${align} bytes`);
        }
        return host;
      }
    }
    throw new UbiError(
      "E_PROTOCOL",
      `the ${what} (${lengthBytes} bytes at 0x${address.toString(16)}) is outside the shared memory`,
    );
  }

  // --- internal ---

  #store(): void {
    GuestMemory.store(this.#shared, this.#regions);
  }
}

function mapRegion(
  region: MemoryRegion,
  fd: number,
  others: readonly MappedRegion[],
): MappedRegion {
  checkRegion(region, others);
  const pageSize = pageSizeOf(fd);
  const offsetBytes = Math.floor(region.mmapOffset / pageSize) * pageSize;
  const skip = region.mmapOffset - offsetBytes;
  const mapBytes = Math.ceil((skip + region.sizeBytes) / pageSize) * pageSize;
  checkFile(fd, region.mmapOffset + region.sizeBytes);
  const mapAddress = mapFile({ fd, offsetBytes, lengthBytes: mapBytes, writable: true });
  try {
    guardMemory(mapAddress, mapBytes, pageSize);
  } catch (error) {
    unmap(mapAddress, mapBytes);
    throw error;
  }
  return { ...region, hostAddress: mapAddress + skip, mapAddress, mapBytes };
}

function checkRegion(region: MemoryRegion, others: readonly MappedRegion[]): void {
  if (region.sizeBytes === 0) {
    throw new UbiError("E_PROTOCOL", "a memory region has no size");
  }
  for (const end of [region.guestAddress, region.userAddress, region.mmapOffset]) {
    if (!Number.isSafeInteger(end + region.sizeBytes + PAGE_SIZE)) {
      throw new UbiError("E_PROTOCOL", "a memory region wraps around");
    }
  }
  const isOverlapping = others.some(
    (other) =>
      region.guestAddress < other.guestAddress + other.sizeBytes &&
      other.guestAddress < region.guestAddress + region.sizeBytes,
  );
  if (isOverlapping) {
    throw new UbiError("E_PROTOCOL", "two memory regions overlap in the guest's address space");
  }
}

/** A file that is too short would end in SIGBUS at the first access behind its end. */
function checkFile(fd: number, endBytes: number): void {
  let file: Stats;
  try {
    file = fstatSync(fd);
  } catch (error) {
    throw new UbiError(
      "E_PROTOCOL",
      `a memory region has no usable descriptor: ${errorText(error)}`,
    );
  }
  // Only of a file is the size known: memory may come from a device as well.
  if (file.isFile() && file.size < endBytes) {
    throw new UbiError(
      "E_PROTOCOL",
      `a memory region ends at byte ${endBytes} of a file of ${file.size} bytes`,
    );
  }
}

function unmapRegion(region: MappedRegion): void {
  unguardMemory(region.mapAddress);
  unmap(region.mapAddress, region.mapBytes);
}
