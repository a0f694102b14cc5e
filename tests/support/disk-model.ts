/** What a disk must hold after requests: every outcome and every byte that a request brings is compared with it. */
import { expect } from "bun:test";
import { type Finished, Operation, Outcome, SECTOR, type WorldRequest } from "./executor-world.ts";
import { spans } from "./random-requests.ts";

export class DiskModel {
  readonly content: Uint8Array;
  /** Sectors of the medium that fail whatever touches them. */
  readonly bad = new Set<number>();
  /** Nobody can know what these hold: they were freed, or a write to them failed. */
  readonly #isUnknown: Uint8Array;
  readonly #mayFail: boolean;

  /** @param mayFail any request may fail, also one that touches nothing bad */
  constructor(sectors: number, mayFail = false) {
    this.content = new Uint8Array(sectors * SECTOR);
    this.content.forEach((_, i) => {
      this.content[i] = (i * 31 + (i >> 9)) & 0xff;
    });
    this.#isUnknown = new Uint8Array(sectors);
    this.#mayFail = mayFail;
  }

  check(finished: readonly Finished[]): void {
    for (const { request, outcome, data } of finished) {
      const isBad = this.#touchesBad(request);
      if (!this.#mayFail) {
        expect(outcome).toBe(isBad ? Outcome.ioError : Outcome.ok);
      }
      const isOk = outcome === Outcome.ok;
      switch (request.operation) {
        case Operation.read:
          this.#checkRead(request, isOk ? data : new Uint8Array(0));
          break;
        case Operation.write:
          this.#set(request.sector, request.data ?? new Uint8Array(0), isOk);
          break;
        default:
          this.#setRanges(request, outcome);
      }
    }
  }

  /** @param contents all of the disk */
  checkContents(contents: Uint8Array): void {
    const wrong = Array.from({ length: this.#isUnknown.length }, (_, sector) => sector).filter(
      (sector) =>
        this.#isUnknown[sector] === 0 &&
        Buffer.compare(
          contents.subarray(sector * SECTOR, (sector + 1) * SECTOR),
          this.content.subarray(sector * SECTOR, (sector + 1) * SECTOR),
        ) !== 0,
    );
    expect(wrong).toEqual([]);
  }

  // --- internal ---

  #touchesBad(request: WorldRequest): boolean {
    return spans(request).some(([first, count]) =>
      [...this.bad].some((sector) => sector >= first && sector < first + count),
    );
  }

  #checkRead(request: WorldRequest, data: Uint8Array): void {
    for (let i = 0; i < data.length / SECTOR; i++) {
      const sector = request.sector + i;
      if (this.#isUnknown[sector] === 0) {
        const expected = this.content.subarray(sector * SECTOR, (sector + 1) * SECTOR);
        expect(Buffer.compare(data.subarray(i * SECTOR, (i + 1) * SECTOR), expected)).toBe(0);
      }
    }
  }

  #set(sector: number, data: Uint8Array, isKnown: boolean): void {
    this.content.set(data, sector * SECTOR);
    this.#isUnknown.fill(isKnown ? 0 : 1, sector, sector + data.length / SECTOR);
  }

  #setRanges(request: WorldRequest, outcome: number): void {
    const isKnown = request.operation === Operation.writeZeroes && outcome === Outcome.ok;
    for (const { sector, sectorCount } of request.ranges ?? []) {
      this.#set(sector, new Uint8Array(sectorCount * SECTOR), isKnown);
    }
  }
}
