/** The front end's side of a log of dirty pages, in shared memory of its own: one bit for each 4096 bytes. */
import { createSharedMemory, mapFile, PAGE_SIZE, unmap, viewOf } from "../../src/ffi/memory.ts";
import { closeDescriptor } from "../../src/ffi/socket.ts";
import { decodeU64, encodeLogArea, REQUEST } from "../../src/formats/vhost-user.ts";
import type { HostileClient } from "./hostile-client.ts";

/** Neither a page nor a word: the log begins where the front end says. */
const OFFSET_BYTES = PAGE_SIZE + 3;

export class PageLog implements Disposable {
  readonly fd: number;
  readonly sizeBytes: number;
  readonly #fileBytes: number;
  readonly #address: number;
  readonly #bits: Uint8Array;

  /** For guest addresses below `end`. */
  constructor(end: number) {
    this.sizeBytes = Math.ceil(end / PAGE_SIZE / 8);
    this.#fileBytes = OFFSET_BYTES + this.sizeBytes + PAGE_SIZE;
    this.fd = createSharedMemory(this.#fileBytes);
    const lengthBytes = this.#fileBytes;
    this.#address = mapFile({ fd: this.fd, offsetBytes: 0, lengthBytes, writable: true });
    this.#bits = new Uint8Array(viewOf(this.#address, this.#fileBytes));
  }

  /** SET_LOG_BASE. @throws Error when it is refused */
  send(client: HostileClient): void {
    const area = { sizeBytes: this.sizeBytes, offsetBytes: OFFSET_BYTES };
    client.send(REQUEST.SET_LOG_BASE, encodeLogArea(area), [this.fd]);
    const answer = client.reply();
    if (answer === undefined || decodeU64(answer) !== 0n) {
      throw new Error("the log is refused");
    }
  }

  clear(): void {
    this.#bits.fill(0);
  }

  /** First guest address of every marked page. */
  pages(): Set<number> {
    const marked = new Set<number>();
    this.#bits.subarray(OFFSET_BYTES, OFFSET_BYTES + this.sizeBytes).forEach((byte, at) => {
      for (let bit = 0; byte !== 0 && bit < 8; bit++) {
        if (((byte >> bit) & 1) === 1) {
          marked.add((at * 8 + bit) * PAGE_SIZE);
        }
      }
    });
    return marked;
  }

  /** Nothing before or behind the log has been touched. */
  isAloneInFile(): boolean {
    const [before, behind] = [
      this.#bits.subarray(0, OFFSET_BYTES),
      this.#bits.subarray(OFFSET_BYTES + this.sizeBytes),
    ];
    return before.every((byte) => byte === 0) && behind.every((byte) => byte === 0);
  }

  [Symbol.dispose](): void {
    closeDescriptor(this.fd);
    unmap(this.#address, this.#fileBytes);
  }
}
