/** Reads stripes of a disk as the guest sees them, whole ones: through the page cache, deciphered, in any thread. */
import { XtsCipher } from "../disk/cipher.ts";
import { errnoText, UbiError } from "../errors.ts";
import { forgetFile, readFileAt, willNeedFile } from "../ffi/file.ts";
import { fillMemory } from "../ffi/memory.ts";
import { SECTOR_BYTES } from "../formats/virtio-blk.ts";

/** The data file of the disk, which the main thread keeps open and locked. */
export interface ArchivedData {
  readonly path: string;
  readonly fd: number;
  readonly sizeBytes: number;
  /** Of the disk's cipher; undefined for a plain disk. */
  readonly cipherContext: number | undefined;
}

/** How far the kernel is asked to read ahead: enough for a slow disk, little enough to stay in memory. */
const READ_AHEAD_BYTES = 8 * 2 ** 20;

export class DiskStripeReader implements Disposable {
  readonly #disk: ArchivedData;
  readonly #stripeBytes: number;
  readonly #cipher: XtsCipher | undefined;

  constructor(disk: ArchivedData, stripeBytes: number) {
    this.#disk = disk;
    this.#stripeBytes = stripeBytes;
    this.#cipher =
      disk.cipherContext === undefined ? undefined : XtsCipher.attach(disk.cipherContext);
  }

  /** What lies behind the end of the disk is zeros. @throws UbiError E_DISK_IO, E_CIPHER */
  read(stripe: number, address: number): void {
    const { path, fd, sizeBytes } = this.#disk;
    const offset = stripe * this.#stripeBytes;
    const present = Math.min(this.#stripeBytes, sizeBytes - offset);
    willNeedFile(fd, offset + present, READ_AHEAD_BYTES);
    const read = readFileAt(fd, offset, address, present);
    if (read < 0) {
      const message = `cannot read stripe ${stripe} of ${path}: ${errnoText(read)}`;
      throw new UbiError("E_DISK_IO", message);
    }
    forgetFile(fd, offset, present); // it is read once, and would push out what others need
    fillMemory(address + present, 0, this.#stripeBytes - present);
    if (this.#cipher !== undefined) {
      const sectors = present / SECTOR_BYTES;
      const result = this.#cipher.decrypt(offset / SECTOR_BYTES, sectors, address, address);
      if (result < 0) {
        const message = `cannot decipher stripe ${stripe} of ${path}: ${errnoText(result)}`;
        throw new UbiError("E_CIPHER", message);
      }
    }
  }

  [Symbol.dispose](): void {
    this.#cipher?.[Symbol.dispose]();
  }
}
