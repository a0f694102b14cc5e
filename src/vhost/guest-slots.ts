/**
 * What a queue knows of its requests under way beside the request table: the chain each came from, where its
 * status goes, and by which table of guest memory it was translated.
 *
 *   table 7 in force      slot | 0 | 1 | 2 | 3 |      0: the one in force
 *                        since | 5 | 0 | 6 | 0 |      oldest table still used: 5
 *
 * A request keeps the addresses that it was given when it was taken. So a new table is in force at once, and
 * memory that it no longer has stays mapped until the last request of an older one has ended.
 *
 * Cost: 10 ns a request, and a pass over all slots whenever a request of an older table ends.
 */
import { Operation, Outcome, type RequestTable } from "../disk/request-table.ts";
import { memoryFaults, store8 } from "../ffi/memory.ts";
import { f64, i32, u32 } from "../ffi/view.ts";
import { DEVICE_ID_BYTES, REQUEST_TYPE, STATUS } from "../formats/virtio-blk.ts";
import type { BlockChain } from "../virtio/block-chain.ts";
import type { DirtyLog } from "../virtio/dirty-log.ts";

export class GuestSlots {
  readonly #requests: RequestTable;
  readonly #dirtyLog: DirtyLog;
  readonly #ticket: Uint32Array;
  readonly #statusAddress: Float64Array;
  readonly #tableOf: Int32Array;
  #table = 0;
  #oldest = 0;
  #oldCount = 0;
  #faults = 0;
  #faultsOfTable = 0;

  constructor(requests: RequestTable, dirtyLog: DirtyLog) {
    this.#requests = requests;
    this.#dirtyLog = dirtyLog;
    this.#ticket = new Uint32Array(requests.slotsMax);
    this.#statusAddress = new Float64Array(requests.slotsMax);
    this.#tableOf = new Int32Array(requests.slotsMax);
  }

  /** Fills the columns of a slot from its chain. */
  fill(slot: number, operation: number, chain: BlockChain): void {
    const requests = this.#requests;
    const place = i32(requests.segmentStart, slot);
    for (let i = 0; i < chain.dataCount; i++) {
      requests.segmentAddress[place + i] = f64(chain.address, chain.dataStart + i);
      requests.segmentLength[place + i] = u32(chain.length, chain.dataStart + i);
    }
    requests.operation[slot] = operation;
    requests.sector[slot] = chain.sector;
    requests.bytes[slot] = chain.dataBytes;
    this.#ticket[slot] = chain.ticket;
    this.#statusAddress[slot] = chain.statusAddress;
  }

  /** What the ring knows the chain by. */
  ticket(slot: number): number {
    return u32(this.#ticket, slot);
  }

  /** Writes the status. Returns how many bytes the device has written for this request. */
  answer(slot: number, outcome: number): number {
    const statusAddress = f64(this.#statusAddress, slot);
    let written = 0;
    if (statusAddress !== 0) {
      store8(statusAddress, outcome);
      written = 1;
    }
    const isRead = this.#requests.operation[slot] === Operation.read;
    if (this.#dirtyLog.isOn) {
      this.#mark(slot, isRead, statusAddress);
    }
    return isRead && outcome === Outcome.ok ? written + f64(this.#requests.bytes, slot) : written;
  }

  /** Writes the status of a chain that gets no slot. Returns how many bytes the device has written for it. */
  answerChain(chain: BlockChain, status: number): number {
    const isId = chain.type === REQUEST_TYPE.GET_ID && status === STATUS.OK;
    const { statusAddress } = chain;
    if (isId && this.#dirtyLog.isOn) {
      for (let i = 0; i < chain.dataCount; i++) {
        const place = chain.dataStart + i;
        this.#dirtyLog.mark(f64(chain.address, place), u32(chain.length, place));
      }
    }
    if (statusAddress === 0) {
      return 0;
    }
    store8(statusAddress, status);
    if (this.#dirtyLog.isOn) {
      this.#dirtyLog.mark(statusAddress, 1);
    }
    return (isId ? DEVICE_ID_BYTES : 0) + 1;
  }

  /** The oldest table that a request under way was translated by, or the one in force. */
  get oldestTable(): number {
    return this.#oldest;
  }

  /** Some requests under way were translated by a table that is no longer in force. */
  get hasOld(): boolean {
    return this.#oldCount > 0;
  }

  /** What was moved while memory was cut off may have come from or gone to the pages that cover the hole. */
  isMemoryLost(): boolean {
    return memoryFaults() !== this.#faults;
  }

  /**
   * `table` is in force for what is taken from here on. Tables are numbered upwards.
   * @param faults `memoryFaults` when the oldest mapping of the table was made
   */
  changeTable(table: number, faults: number): void {
    const requests = this.#requests;
    for (let slot = 0; slot < requests.slotsMax; slot++) {
      if (requests.isTaken(slot) && this.#tableOf[slot] === 0) {
        this.#tableOf[slot] = this.#table;
        this.#oldCount += 1;
      }
    }
    this.#table = table;
    this.#faultsOfTable = faults;
    this.#findOldest();
  }

  /** A request has ended while there are old ones. True when `oldestTable` is another one now. */
  endOld(slot: number): boolean {
    if (this.#tableOf[slot] === 0) {
      return false;
    }
    this.#tableOf[slot] = 0;
    this.#oldCount -= 1;
    const before = this.#oldest;
    this.#findOldest();
    return this.#oldest !== before;
  }

  // --- internal ---

  /** Of a read all that it may have written, whatever came of it. */
  #mark(slot: number, isRead: boolean, statusAddress: number): void {
    const log = this.#dirtyLog;
    const requests = this.#requests;
    const start = i32(requests.segmentStart, slot);
    const end = isRead ? start + i32(requests.segmentCount, slot) : start;
    for (let i = start; i < end; i++) {
      log.mark(f64(requests.segmentAddress, i), u32(requests.segmentLength, i));
    }
    if (statusAddress !== 0) {
      log.mark(statusAddress, 1);
    }
  }

  #findOldest(): void {
    let oldest = this.#table;
    for (let slot = 0; slot < this.#tableOf.length; slot++) {
      const table = i32(this.#tableOf, slot);
      oldest = table !== 0 && table < oldest ? table : oldest;
    }
    this.#oldest = oldest;
    // What was moved by an older table is lost with that one's memory, whatever holds for the new one.
    this.#faults = this.hasOld ? this.#faults : this.#faultsOfTable;
  }
}
