/**
 * Makes a disk that is served as large as its data file has become. Whoever operates it makes the file larger first,
 * then asks for this.
 *
 *   front end: can it? -> data file's size durable -> disk: metadata, threads (DiskDevice.grow) -> front end tells the
 *   guest
 */
import { UbiError } from "../errors.ts";
import { SECTOR_BYTES } from "../formats/virtio-blk.ts";
import { log } from "../log.ts";
import type { DiskDevice } from "./disk-device.ts";

/**
 * What became of the news of another size: the guest's side confirmed it; was sent it, and confirms nothing; could do
 * nothing with it; or nobody can be told before it connects next.
 */
export type GuestNews = "told" | "sent" | "refused" | "next_connection";

/** The front end of a disk, as far as growing goes. */
export interface GrowingFrontEnd {
  /** @throws UbiError when it cannot tell of another size; before anything was changed */
  checkGrowth(): void;
  /** The disk has its new size: tells the guest. */
  tellSize(sectors: number): Promise<GuestNews>;
}

export interface GrowthOutcome {
  readonly bytesBefore: number;
  readonly bytes: number;
  readonly guest: GuestNews;
}

type GrowingDisk = Pick<DiskDevice, "size" | "measure" | "syncSize" | "grow">;

export class DiskGrowth {
  readonly #device: GrowingDisk;
  #frontEnd: GrowingFrontEnd | undefined;
  #isUnderWay = false;

  constructor(device: GrowingDisk) {
    this.#device = device;
  }

  get isUnderWay(): boolean {
    return this.#isUnderWay;
  }

  /** From here on it may grow: the disk is served. */
  open(frontEnd: GrowingFrontEnd): void {
    this.#frontEnd = frontEnd;
  }

  /** The disk is going to be stopped: a growth under way touches nothing any more that a stop closes. */
  close(): void {
    this.#frontEnd = undefined;
  }

  /**
   * Looks at the data file's size, grows to it, and tells the guest; also when it has that size, in case the guest did
   * not hear of it.
   * @throws UbiError E_RESIZE, E_METADATA_SIZE, E_DISK_IO, E_CIPHER, E_UBLK_*
   */
  async growToFile(): Promise<GrowthOutcome> {
    const frontEnd = this.#frontEnd;
    if (frontEnd === undefined) {
      throw notServed();
    }
    if (this.#isUnderWay) {
      throw new UbiError("E_RESIZE", "the disk is growing already; try again when that is done");
    }
    this.#isUnderWay = true;
    try {
      return await this.#grow(frontEnd);
    } finally {
      this.#isUnderWay = false;
    }
  }

  // --- internal ---

  async #grow(frontEnd: GrowingFrontEnd): Promise<GrowthOutcome> {
    const device = this.#device;
    const before = device.size.sectors;
    const sectors = device.measure();
    frontEnd.checkGrowth();
    await device.syncSize();
    if (this.#frontEnd !== frontEnd) {
      throw notServed();
    }
    await device.grow(sectors);
    const guest =
      this.#frontEnd === frontEnd ? await frontEnd.tellSize(sectors) : "next_connection";
    if (sectors > before) {
      log.info("the disk has grown", { sectors, before, guest });
    }
    return { bytesBefore: before * SECTOR_BYTES, bytes: sectors * SECTOR_BYTES, guest };
  }
}

function notServed(): UbiError {
  return new UbiError("E_RESIZE", "the disk is not served yet, or no more: it cannot grow now");
}
