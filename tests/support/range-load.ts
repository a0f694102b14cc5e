/**
 * Writes, zeroes and discards of whole stripes and parts of them, several under way at once, of a guest whose
 * backend may end at any moment. What was acknowledged stands in the used ring, which outlives the backend.
 */
import {
  encodeRangeSegment,
  FEATURE,
  REQUEST_TYPE,
  SEGMENT_UNMAP,
} from "../../src/formats/virtio-blk.ts";
import { at, DATA, ENTRIES, HostileClient, USED } from "./hostile-client.ts";
import type { SeededRandom } from "./random.ts";
import { Content, type SectorModel, type SectorRange } from "./sector-model.ts";

export interface RangeLoadOptions {
  readonly socketPath: string;
  readonly model: SectorModel;
  readonly random: SeededRandom;
  /** Where the requests go, in sectors. */
  readonly firstSector: number;
  readonly endSector: number;
  readonly stripeSectors: number;
}

interface Request extends SectorRange {
  readonly type: number;
  readonly flags: number;
}

const SLOTS = 12;
/** Header, data, status. */
const DESCRIPTORS = 3;
/** Data of one slot. */
const DATA_BYTES = 72 * 1024;
const BLOCK_SECTORS = 8;
const STRIPES_MAX = 4;
const { OUT, DISCARD, WRITE_ZEROES } = REQUEST_TYPE;

export class RangeLoad implements Disposable {
  readonly #options: RangeLoadOptions;
  readonly #client: HostileClient;
  readonly #slots: (Request | undefined)[] = new Array(SLOTS).fill(undefined);
  #generation: number;
  #taken = 0;

  /** @param generation the last one that was written before */
  constructor(options: RangeLoadOptions, generation: number) {
    this.#options = options;
    this.#generation = generation;
    const features = [FEATURE.BLK_DISCARD, FEATURE.BLK_WRITE_ZEROES];
    this.#client = HostileClient.attach(options.socketPath, { features });
  }

  /** The last one that was sent. */
  get generation(): number {
    return this.#generation;
  }

  /** Fills free slots with requests that touch nothing that is under way. */
  send(): void {
    const heads: number[] = [];
    for (let slot = 0; slot < SLOTS; slot++) {
      const request = this.#slots[slot] === undefined ? this.#next() : undefined;
      if (request !== undefined && !this.#options.model.isBusy(request)) {
        this.#slots[slot] = request;
        this.#options.model.send(request);
        this.#prepare(slot, request);
        heads.push(slot * DESCRIPTORS);
      }
    }
    if (heads.length > 0) {
      this.#client.offer(...heads);
      this.#client.kick();
    }
  }

  /** Takes what was acknowledged. @throws Error when a request failed */
  take(): void {
    const client = this.#client;
    while (client.usedIndex() !== this.#taken) {
      const head = client.memory.getUint32(USED + 4 + (this.#taken % ENTRIES) * 8, true);
      this.#taken = (this.#taken + 1) & 0xffff;
      const slot = head / DESCRIPTORS;
      const request = this.#slots[slot];
      if (request === undefined || client.status(head) !== 0) {
        const what = JSON.stringify(request);
        throw new Error(`descriptor ${head} ended with status ${client.status(head)}: ${what}`);
      }
      this.#slots[slot] = undefined;
      this.#options.model.acknowledge(request);
    }
  }

  [Symbol.dispose](): void {
    this.#client[Symbol.dispose]();
  }

  // --- internal ---

  #next(): Request {
    const { random } = this.#options;
    const type = random.pick([OUT, OUT, DISCARD, WRITE_ZEROES]);
    const place = random.oneIn(2) ? this.#wholeStripes(type) : this.#part();
    if (type === OUT) {
      this.#generation += 1;
      return { ...place, type, flags: 0, content: this.#generation };
    }
    const isZeroing = type === WRITE_ZEROES;
    const flags = isZeroing && random.oneIn(2) ? SEGMENT_UNMAP : 0;
    return { ...place, type, flags, content: isZeroing ? Content.zeros : Content.freed };
  }

  /** Writes carry data, for which there is room for one stripe. */
  #wholeStripes(type: number): Pick<SectorRange, "sector" | "sectorCount"> {
    const { random, firstSector, endSector, stripeSectors } = this.#options;
    const first = Math.ceil(firstSector / stripeSectors);
    const end = Math.floor(endSector / stripeSectors);
    const stripe = random.between(first, end - 1);
    const count = type === OUT ? 1 : Math.min(random.between(1, STRIPES_MAX), end - stripe);
    return { sector: stripe * stripeSectors, sectorCount: count * stripeSectors };
  }

  /** Whole blocks of 4 KiB, which every disk frees; across the border of stripes now and then. */
  #part(): Pick<SectorRange, "sector" | "sectorCount"> {
    const { random, firstSector, endSector } = this.#options;
    const blocks = (endSector - firstSector) / BLOCK_SECTORS;
    const count = Math.min(random.pick([1, 1, 3, 8, 17]), blocks);
    const block = random.between(0, blocks - count);
    return {
      sector: firstSector + block * BLOCK_SECTORS,
      sectorCount: count * BLOCK_SECTORS,
    };
  }

  #prepare(slot: number, request: Request): void {
    const client = this.#client;
    const head = slot * DESCRIPTORS;
    const place = DATA + slot * DATA_BYTES;
    const isWrite = request.type === OUT;
    const data = isWrite ? this.#options.model.bytesOf(request) : encodeRangeSegment(request);
    client.bytes.set(data, place);
    client.setChain(head, [
      client.header(head, request.type, isWrite ? request.sector : 0),
      { address: at(place), length: data.length, flags: 0 },
      client.statusByte(head),
    ]);
  }
}
