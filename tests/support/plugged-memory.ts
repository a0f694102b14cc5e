/** Memory of a front end beside that of its client, in a file of its own: it is plugged in and taken away by message. */
import { createSharedMemory, mapFile, unmap, viewOf } from "../../src/ffi/memory.ts";
import { closeDescriptor } from "../../src/ffi/socket.ts";
import { encodeMemoryRegion, type MemoryRegion, REQUEST } from "../../src/formats/vhost-user.ts";
import type { HostileClient } from "./hostile-client.ts";

const USER_BASE = 0x5000_0000_0000;

export class PluggedMemory implements Disposable {
  readonly fd: number;
  readonly bytes: Uint8Array;
  readonly region: MemoryRegion;
  readonly #address: number;

  constructor({ guestAddress, sizeBytes }: { guestAddress: number; sizeBytes: number }) {
    this.fd = createSharedMemory(sizeBytes);
    const lengthBytes = sizeBytes;
    this.#address = mapFile({ fd: this.fd, offsetBytes: 0, lengthBytes, writable: true });
    this.bytes = new Uint8Array(viewOf(this.#address, sizeBytes));
    const userAddress = USER_BASE + guestAddress;
    this.region = { guestAddress, userAddress, sizeBytes, mmapOffset: 0 };
  }

  add(client: HostileClient): void {
    client.command(REQUEST.ADD_MEM_REG, encodeMemoryRegion(this.region), [this.fd]);
  }

  remove(client: HostileClient): void {
    client.command(REQUEST.REM_MEM_REG, encodeMemoryRegion(this.region));
  }

  [Symbol.dispose](): void {
    closeDescriptor(this.fd);
    unmap(this.#address, this.region.sizeBytes);
  }
}
