/**
 * What each sector of a disk may hold after its backend was killed: the image, zeros, something that was freed, or
 * a generation that was written. Certain is what the last acknowledged request left; of a request that was under
 * way, each sector holds the old or the new.
 */
import { Pattern, readStamp } from "../../src/bench/pattern.ts";

/** Beside these: generations, from 1 on, which `Pattern` tells apart. */
export const Content = { image: 0, zeros: -1, freed: -2 } as const;

const SECTOR = 512;

export interface SectorRange {
  readonly sector: number;
  readonly sectorCount: number;
  readonly content: number;
}

export interface SectorModelOptions {
  /** What the guest found first, zeros behind the image's end. */
  readonly image: Uint8Array;
  /** Freed sectors read as zeros; without it as anything but the image. */
  readonly isFreedZeros: boolean;
  readonly seed: number;
}

export class SectorModel {
  readonly #options: SectorModelOptions;
  readonly #certain: Int32Array;
  readonly #underWay = new Set<SectorRange>();
  readonly #pattern: Pattern;

  constructor(options: SectorModelOptions) {
    this.#options = options;
    this.#certain = new Int32Array(options.image.length / SECTOR).fill(Content.image);
    this.#pattern = new Pattern(options.seed);
  }

  /** Whether the range touches one under way. */
  isBusy({ sector, sectorCount }: Omit<SectorRange, "content">): boolean {
    return [...this.#underWay].some(
      (other) => sector < other.sector + other.sectorCount && other.sector < sector + sectorCount,
    );
  }

  send(range: SectorRange): void {
    this.#underWay.add(range);
  }

  acknowledge(range: SectorRange): void {
    this.#underWay.delete(range);
    this.#certain.fill(range.content, range.sector, range.sector + range.sectorCount);
  }

  /** The data of a write. */
  bytesOf({ sector, sectorCount, content }: SectorRange): Uint8Array {
    const words = new Uint32Array((sectorCount * SECTOR) / 4);
    for (let i = 0; i < sectorCount; i++) {
      this.#pattern.fill(words, (i * SECTOR) / 4, sector + i, content);
    }
    return new Uint8Array(words.buffer);
  }

  /**
   * Checks sectors that were read when nothing was under way any more; what they hold is certain from then on.
   * @throws Error that names the first wrong sector
   */
  settle(firstSector: number, bytes: Uint8Array): void {
    for (let i = 0; i < bytes.length / SECTOR; i++) {
      const sector = firstSector + i;
      const held = bytes.subarray(i * SECTOR, (i + 1) * SECTOR);
      const possible = this.#possible(sector);
      const found = possible.find((content) => this.#isHeld(content, sector, held));
      if (found === undefined) {
        const wanted = possible.map(nameOf).join(" or ");
        throw new Error(
          `sector ${sector} is to hold ${wanted}; it holds ${this.#nameOfHeld(held)}`,
        );
      }
      this.#certain[sector] = found;
    }
  }

  /** All that was read is settled. */
  forget(): void {
    this.#underWay.clear();
  }

  /** The same for sectors of which each may hold the image or one of some generations. */
  expectImageOrGeneration(sector: number, held: Uint8Array, generationMax: number): void {
    const generation = readStamp(wordsOf(held), 0)?.generation ?? 0;
    const isKnown = generation > 0 && generation <= generationMax;
    const content = isKnown ? generation : Content.image;
    if (!this.#isHeld(content, sector, held)) {
      const wanted = generationMax === 0 ? "" : ` or generation 1 to ${generationMax}`;
      const found = this.#nameOfHeld(held);
      throw new Error(`sector ${sector} is to hold the image${wanted}; it holds ${found}`);
    }
  }

  // --- internal ---

  #possible(sector: number): readonly number[] {
    const sent = [...this.#underWay].filter(
      (range) => sector >= range.sector && sector < range.sector + range.sectorCount,
    );
    return [this.#certain[sector] ?? Content.image, ...sent.map(({ content }) => content)];
  }

  #isHeld(content: number, sector: number, held: Uint8Array): boolean {
    switch (content) {
      case Content.image:
        return this.#isImage(sector, held);
      case Content.zeros:
        return isZeros(held);
      case Content.freed:
        return this.#options.isFreedZeros ? isZeros(held) : !this.#isImage(sector, held);
      default:
        return this.#pattern.firstDifference(wordsOf(held), 0, sector, content) < 0;
    }
  }

  #isImage(sector: number, held: Uint8Array): boolean {
    const { image } = this.#options;
    return Buffer.compare(held, image.subarray(sector * SECTOR, (sector + 1) * SECTOR)) === 0;
  }

  #nameOfHeld(held: Uint8Array): string {
    const stamp = readStamp(wordsOf(held), 0);
    if (stamp !== undefined) {
      return `generation ${stamp.generation} of sector ${stamp.sector}`;
    }
    const { image } = this.#options;
    const at = Buffer.from(image.buffer, image.byteOffset, image.length).indexOf(held);
    if (isZeros(held)) {
      return "zeros";
    }
    return at < 0
      ? `something else: ${Buffer.from(held).toString("hex", 0, 32)}…`
      : `the image at byte ${at}`;
  }
}

// --- internal ---

function nameOf(content: number): string {
  const names: Readonly<Record<number, string>> = { 0: "the image", [-1]: "zeros", [-2]: "freed" };
  return names[content] ?? `generation ${content}`;
}

function isZeros(bytes: Uint8Array): boolean {
  return bytes.every((byte) => byte === 0);
}

function wordsOf(sector: Uint8Array): Uint32Array {
  return new Uint32Array(sector.slice().buffer);
}
