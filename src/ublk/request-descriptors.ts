/**
 * The requests of one queue as the ublk driver describes them, by tag: memory of its character device that the driver
 * writes and this process reads (ublk, struct ublksrv_io_desc).
 */
import { mapFile, unmap, viewOf } from "../ffi/memory.ts";
import { DESCRIPTOR_BYTES, descriptorsBytes, descriptorsOffset } from "../formats/ublk.ts";

export class RequestDescriptors implements Disposable {
  static readonly WORDS = DESCRIPTOR_BYTES / 4;
  /** `WORDS` a tag; none before they are mapped. */
  words = new Uint32Array(0);
  readonly #queue: number;
  readonly #depth: number;
  readonly #charFd: number;
  #address = 0;

  constructor(charFd: number, queue: number, depth: number) {
    this.#charFd = charFd;
    this.#queue = queue;
    this.#depth = depth;
  }

  /**
   * Not before every queue of the device is fetched for: until then the driver of Linux 6.12 lets no process map them
   * but the first one that did, even when that one is dead. And not after anything that the driver gave back was looked
   * at: since 6.15 a device that is taken over has requests for whoever has fetched.
   * @throws UbiError E_MEMORY
   */
  map(): void {
    this.#address = mapFile({
      fd: this.#charFd,
      offsetBytes: descriptorsOffset(this.#queue),
      lengthBytes: descriptorsBytes(this.#depth),
      writable: false,
    });
    this.words = new Uint32Array(viewOf(this.#address, this.#depth * DESCRIPTOR_BYTES));
  }

  /** The driver lets nobody delete a device that is still mapped. */
  [Symbol.dispose](): void {
    if (this.#address !== 0) {
      unmap(this.#address, descriptorsBytes(this.#depth));
      this.#address = 0;
    }
  }
}
