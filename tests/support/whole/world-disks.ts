/** The disks of a simulated backend, fresh: base, metadata, and the source; and what can be read from their images. */
import { XtsCipher } from "../../../src/disk/cipher.ts";
import { addressOf } from "../../../src/ffi/memory.ts";
import {
  type Metadata,
  type MetadataMedium,
  metadataBytes,
  newMetadata,
  STRIPE_FLAG,
} from "../../../src/formats/metadata.ts";
import { decodeMetadata, encodeMetadata } from "../../../src/formats/metadata-codec.ts";
import type { SeededRandom } from "../random.ts";
import { Content, contentAt, fillContent } from "./sector-content.ts";
import { SECTOR, SimDisk } from "./sim-disk.ts";
import { SimArchive } from "./sim-source.ts";
import { sectorsOf, sourceSectorsOf, type WorldKind } from "./world-kind.ts";

const KEY = Uint8Array.from({ length: 64 }, (_, i) => i);
/** Stripes of the source that are all zeros. */
const ZERO_STRIPES = [2, 7];
const { FETCHED, HAS_SOURCE } = STRIPE_FLAG;

export class WorldDisks implements Disposable {
  readonly sectors: number;
  readonly base: SimDisk;
  readonly metadata: SimDisk;
  readonly image: SimDisk | undefined;
  readonly archive: SimArchive | undefined;
  readonly cipher: XtsCipher | undefined;
  /** What the guest finds first. */
  readonly initial: readonly number[];
  readonly #kind: WorldKind;

  constructor(kind: WorldKind, random: SeededRandom) {
    this.#kind = kind;
    const { stripeSectors } = kind;
    this.sectors = sectorsOf(kind);
    const sourceSectors = kind.isLazy ? sourceSectorsOf(kind) : 0;
    this.cipher = kind.isEnciphered ? XtsCipher.create(KEY) : undefined;
    this.initial = Array.from({ length: this.sectors }, (_, sector) => {
      const isZero = ZERO_STRIPES.includes(Math.floor(sector / stripeSectors));
      return sector >= sourceSectors || isZero ? Content.zeros : Content.source;
    });
    const source = this.#contentOf(this.initial.slice(0, sourceSectors));
    const sourceStripes = Math.ceil(sourceSectors / stripeSectors);
    const onBase = this.initial.map((value, sector) =>
      sector < sourceStripes * stripeSectors ? Content.stale : value,
    );
    const base = this.#contentOf(onBase);
    this.#encipher(base, 0);
    this.base = new SimDisk(base, random);
    const shift = Math.log2(stripeSectors);
    const fresh = newMetadata(
      { stripeShift: shift, stripeCount: kind.stripes },
      (stripe) => stripe < sourceStripes,
    );
    this.metadata = new SimDisk(this.#encodeMetadata(fresh), random);
    const hasImage = kind.isLazy && kind.isImage;
    this.image = hasImage ? new SimDisk(source, random) : undefined;
    this.archive =
      kind.isLazy && !kind.isImage
        ? new SimArchive({
            content: source,
            stripeSectors,
            isCompressed: kind.isCompressed,
            isEnciphered: kind.isEnciphered,
          })
        : undefined;
  }

  /** @param image of the metadata file */
  decode(image: Uint8Array): Metadata {
    return decodeMetadata(this.#medium(image));
  }

  /** What a guest would read from these images, sector by sector. */
  *contents(base: Uint8Array, metadata: Metadata): Generator<number> {
    const plain = base.slice();
    this.#decipher(plain);
    const words = new Int32Array(plain.buffer);
    const { stripeSectors, isLazy } = this.#kind;
    for (let sector = 0; sector < this.sectors; sector++) {
      const flags = isLazy ? (metadata.flags[Math.floor(sector / stripeSectors)] ?? 0) : FETCHED;
      const isInSource = (flags & (HAS_SOURCE | FETCHED)) === HAS_SOURCE;
      yield isInSource
        ? (this.initial[sector] ?? 0)
        : contentAt(words, (sector * SECTOR) / 4, sector);
    }
  }

  [Symbol.dispose](): void {
    for (const disk of [this.base, this.metadata, this.image]) {
      disk?.[Symbol.dispose]();
    }
    this.cipher?.[Symbol.dispose]();
  }

  // --- internal ---

  #contentOf(values: readonly number[]): Uint8Array {
    const words = new Int32Array((values.length * SECTOR) / 4);
    for (const [sector, value] of values.entries()) {
      const at = (sector * SECTOR) / 4;
      fillContent(words.subarray(at, at + SECTOR / 4), sector, 1, value);
    }
    return new Uint8Array(words.buffer);
  }

  #encipher(bytes: Uint8Array, first: number): void {
    const address = addressOf(bytes);
    this.cipher?.encrypt(first, bytes.length / SECTOR, address, address);
  }

  #decipher(bytes: Uint8Array): void {
    const address = addressOf(bytes);
    this.cipher?.decrypt(0, bytes.length / SECTOR, address, address);
  }

  #encodeMetadata(metadata: Metadata): Uint8Array {
    const image = new Uint8Array(metadataBytes(metadata.stripeCount));
    encodeMetadata(metadata, this.#medium(image));
    return image;
  }

  #medium(image: Uint8Array): MetadataMedium {
    const buffer = new Uint8Array(4096);
    return {
      sizeBytes: image.length,
      buffer,
      read: (sector, count) => {
        const part = image.slice(sector * SECTOR, (sector + count) * SECTOR);
        const address = addressOf(part);
        this.cipher?.decrypt(sector, count, address, address);
        buffer.set(part);
      },
      write: (sector, count) => {
        const part = buffer.slice(0, count * SECTOR);
        this.#encipher(part, sector);
        image.set(part, sector * SECTOR);
      },
      sync: () => {},
    };
  }
}
