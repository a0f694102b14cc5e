/**
 * The front end's memory in this process: maps the regions it passes, translates its user addresses for
 * ring set-up, and unmaps what is gone, but only when no queue can be using it any more.
 *
 *   table 1   | A | B |          A stays the mapping it was; B is retired, and unmapped when no
 *   table 2   | A |   | C |      request is under way that was translated by table 1
 */
import { fstatSync, type Stats } from "node:fs";
import { errorText, UbiError } from "../errors.ts";
import { memoryFaults, PAGE_SIZE } from "../ffi/memory.ts";
import { MEMORY_SLOTS_MAX, type MemoryRegion } from "../formats/vhost-user.ts";
import { GuardedMapping } from "./guarded-mapping.ts";
import { MemoryTables, RETIRED_MAX } from "./memory-tables.ts";

interface MappedRegion extends MemoryRegion {
  readonly hostAddress: number;
  readonly mapping: GuardedMapping;
  /** Which file it is, while it is mapped. */
  readonly file: string;
  /** `memoryFaults` when it was mapped. */
  readonly faults: number;
}

interface RetiredRegion {
  readonly region: MappedRegion;
  /** The first table without it. */
  readonly table: number;
}

export class MemoryMap {
  readonly #tables: MemoryTables;
  #regions: readonly MappedRegion[] = [];
  #retired: readonly RetiredRegion[] = [];
  #table = 0;

  /** @param shared where the queue workers find the tables: `MemoryTables.sharedBytes` */
  constructor(shared: SharedArrayBuffer) {
    this.#tables = new MemoryTables(shared);
  }

  get count(): number {
    return this.#regions.length;
  }

  /** Number of the table in force; each change makes a new one. */
  get table(): number {
    return this.#table;
  }

  /** The first guest address behind all regions. */
  get guestEnd(): number {
    return Math.max(0, ...this.#regions.map((each) => each.guestAddress + each.sizeBytes));
  }

  /** `memoryFaults` when the oldest mapping of the table was made: memory was cut off when there are more now. */
  get faults(): number {
    return Math.min(memoryFaults(), ...this.#regions.map(({ faults }) => faults));
  }

  /** Replaces all regions; one that is the same as before keeps its mapping. */
  replace(regions: readonly MemoryRegion[], descriptors: readonly number[]): void {
    const now: MappedRegion[] = [];
    try {
      for (const [i, region] of regions.entries()) {
        const fd = descriptors[i] ?? -1;
        checkRegion(region, fd, now);
        now.push(this.#sameRegion(region, fd) ?? mapRegion(region, fd));
      }
      this.#change(now);
    } catch (error) {
      for (const region of now.filter((each) => !this.#regions.includes(each))) {
        region.mapping[Symbol.dispose]();
      }
      throw error;
    }
  }

  add(region: MemoryRegion, descriptor: number): void {
    if (this.#regions.length >= MEMORY_SLOTS_MAX) {
      throw new UbiError("E_PROTOCOL", `more than ${MEMORY_SLOTS_MAX} memory regions`);
    }
    checkRegion(region, descriptor, this.#regions);
    this.#change([...this.#regions, mapRegion(region, descriptor)]);
  }

  remove(region: MemoryRegion): void {
    const found = this.#regions.find((mapped) => isSamePlace(mapped, region));
    if (found === undefined) {
      throw new UbiError("E_PROTOCOL", "REM_MEM_REG: there is no such memory region");
    }
    this.#change(this.#regions.filter((mapped) => mapped !== found));
  }

  /** Unmaps what no table from `oldestTable` on has. */
  unmapRetired(oldestTable: number): void {
    for (const { region, table } of this.#retired) {
      if (table <= oldestTable) {
        region.mapping[Symbol.dispose]();
      }
    }
    this.#retired = this.#retired.filter(({ table }) => table > oldestTable);
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

  #change(regions: readonly MappedRegion[]): void {
    const gone = this.#regions.filter((region) => !regions.includes(region));
    if (this.#retired.length + gone.length > RETIRED_MAX) {
      const count = `more than ${RETIRED_MAX} memory regions`;
      throw new UbiError("E_MEMORY", `${count} were taken away while requests use them`);
    }
    this.#table += 1;
    const table = this.#table;
    this.#retired = [...this.#retired, ...gone.map((region) => ({ region, table }))];
    this.#regions = regions;
    const retired = this.#retired.map(({ region }) => region);
    this.#tables.store(regions, retired);
  }

  /** The mapping that is there already; none when pages of it may have been cut off and covered. */
  #sameRegion(region: MemoryRegion, fd: number): MappedRegion | undefined {
    return this.#regions.find(
      (mapped) =>
        isSamePlace(mapped, region) &&
        mapped.mmapOffset === region.mmapOffset &&
        mapped.faults === memoryFaults() &&
        mapped.file === fileOf(fd),
    );
  }
}

function isSamePlace(a: MemoryRegion, b: MemoryRegion): boolean {
  return (
    a.guestAddress === b.guestAddress &&
    a.userAddress === b.userAddress &&
    a.sizeBytes === b.sizeBytes
  );
}

function fileOf(fd: number): string {
  const { dev, ino } = fstatSync(fd, { bigint: true });
  return `${dev}:${ino}`;
}

function mapRegion(region: MemoryRegion, fd: number): MappedRegion {
  const faults = memoryFaults();
  const mapping = new GuardedMapping(fd, region.mmapOffset, region.sizeBytes);
  return { ...region, hostAddress: mapping.address, mapping, file: fileOf(fd), faults };
}

function checkRegion(region: MemoryRegion, fd: number, others: readonly MemoryRegion[]): void {
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
  checkFile("a memory region", fd, region.mmapOffset + region.sizeBytes);
}

/** A file that is too short would end in SIGBUS at the first access behind its end. */
export function checkFile(what: string, fd: number, endBytes: number): void {
  let file: Stats;
  try {
    file = fstatSync(fd);
  } catch (error) {
    throw new UbiError("E_PROTOCOL", `${what} has no usable descriptor: ${errorText(error)}`);
  }
  // Only of a file is the size known: memory may come from a device as well.
  if (file.isFile() && file.size < endBytes) {
    throw new UbiError(
      "E_PROTOCOL",
      `${what} ends at byte ${endBytes} of a file of ${file.size} bytes`,
    );
  }
}
