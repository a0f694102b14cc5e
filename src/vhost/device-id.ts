/** The answer to GET_ID: 20 bytes, cut or padded with zeros (virtio 1.2, 5.2.6). */
import { Arena } from "../ffi/arena.ts";
import { copyMemory } from "../ffi/memory.ts";
import { f64, u32 } from "../ffi/view.ts";
import { DEVICE_ID_BYTES } from "../formats/virtio-blk.ts";
import type { BlockChain } from "../virtio/block-chain.ts";

export class DeviceId {
  readonly #arena = new Arena(4096);
  readonly #bytes = this.#arena.bytes(DEVICE_ID_BYTES);

  constructor(id: string) {
    this.#bytes.view.set(new TextEncoder().encode(id).subarray(0, DEVICE_ID_BYTES));
  }

  /** Writes the id to the chain's data. False when that has no room or is not guest memory. */
  write(chain: BlockChain): boolean {
    if (!chain.isDataMapped || chain.dataBytes < DEVICE_ID_BYTES) {
      return false;
    }
    let done = 0;
    for (let i = chain.dataStart; done < DEVICE_ID_BYTES; i++) {
      const part = Math.min(DEVICE_ID_BYTES - done, u32(chain.length, i));
      copyMemory(f64(chain.address, i), this.#bytes.address + done, part);
      done += part;
    }
    return true;
  }
}
