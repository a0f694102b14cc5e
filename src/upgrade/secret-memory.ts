/**
 * Secrets on their way to another process, in memory that has no name in any file system and never grows or shrinks:
 * both sides hold it by descriptor, and both wipe it.
 *
 *   u32 entries | each: u8 kind, u16 bytes of name, name, 64 bytes declaration, u32 bytes of secret, secret
 */
import { fstatSync } from "node:fs";
import type { KeptSecret } from "../config/kept-secrets.ts";
import { UbiError } from "../errors.ts";
import {
  createSharedMemory,
  F_SEAL_SHRINK,
  mapFile,
  sealsOf,
  unmap,
  viewOf,
  wipeMemory,
} from "../ffi/memory.ts";
import { closeDescriptor } from "../ffi/socket.ts";

const PAGE = 4096;
const DECLARATION_BYTES = 64;
const ENTRY_BYTES = 1 + 2 + DECLARATION_BYTES + 4;
/** More than any document has. */
const BYTES_MAX = 16 * 2 ** 20;

/** The memory while it is in use: disposing wipes it. */
export class SecretMemory implements Disposable {
  readonly fd: number;
  readonly #sizeBytes: number;
  readonly #address: number;
  #isDisposed = false;

  private constructor(fd: number, sizeBytes: number) {
    this.fd = fd;
    this.#sizeBytes = sizeBytes;
    this.#address = mapFile({ fd, offsetBytes: 0, lengthBytes: sizeBytes, writable: true });
  }

  /** @throws UbiError E_MEMORY */
  static holding(secrets: readonly KeptSecret[]): SecretMemory {
    const names = secrets.map(({ name }) => new TextEncoder().encode(name));
    const bytes = secrets.reduce(
      (sum, secret, i) => sum + ENTRY_BYTES + (names[i]?.length ?? 0) + secret.bytes.length,
      4,
    );
    const sizeBytes = Math.ceil(bytes / PAGE) * PAGE;
    const memory = new SecretMemory(createSharedMemory(sizeBytes), sizeBytes);
    const writer = new Cursor(viewOf(memory.#address, sizeBytes));
    writer.put(4, secrets.length);
    for (const [i, secret] of secrets.entries()) {
      const name = names[i] ?? new Uint8Array(0);
      writer.put(1, KINDS.indexOf(secret.kind));
      writer.put(2, name.length);
      writer.bytes(name.length).set(name);
      writer.bytes(DECLARATION_BYTES).set(new TextEncoder().encode(secret.declaration));
      writer.put(4, secret.bytes.length);
      writer.bytes(secret.bytes.length).set(secret.bytes);
    }
    return memory;
  }

  /**
   * Takes over memory that another process has written, reads it, and wipes it.
   * @throws UbiError E_UPGRADE, E_MEMORY
   */
  static take(fd: number): readonly KeptSecret[] {
    try {
      const sizeBytes = fstatSync(fd).size;
      // What could shrink would end this process with a signal.
      const seals = sealsOf(fd);
      if (
        seals < 0 ||
        (seals & F_SEAL_SHRINK) === 0 ||
        !(sizeBytes > 0 && sizeBytes <= BYTES_MAX)
      ) {
        throw broken();
      }
      using memory = new SecretMemory(fd, sizeBytes);
      return read(new Cursor(viewOf(memory.#address, sizeBytes)));
    } finally {
      closeDescriptor(fd);
    }
  }

  /** Wipes it and lets go of it; its creator closes the descriptor. */
  [Symbol.dispose](): void {
    if (!this.#isDisposed) {
      this.#isDisposed = true;
      wipeMemory(this.#address, this.#sizeBytes);
      unmap(this.#address, this.#sizeBytes);
    }
  }
}

// --- internal ---

const KINDS = ["secret", "variable"] as const;

function read(reader: Cursor): readonly KeptSecret[] {
  const count = reader.get(4);
  const secrets: KeptSecret[] = [];
  for (let i = 0; i < count; i++) {
    const kind = KINDS[reader.get(1)];
    if (kind === undefined) {
      throw broken();
    }
    const name = new TextDecoder().decode(reader.bytes(reader.get(2)).slice());
    const declaration = new TextDecoder().decode(reader.bytes(DECLARATION_BYTES).slice());
    const bytes = reader.bytes(reader.get(4)).slice();
    secrets.push({ kind, name, declaration: declaration.replaceAll("\0", ""), bytes });
  }
  return secrets;
}

class Cursor {
  readonly #buffer: ArrayBuffer;
  readonly #view: DataView;
  #at = 0;

  constructor(buffer: ArrayBuffer) {
    this.#buffer = buffer;
    this.#view = new DataView(buffer);
  }

  put(bytes: 1 | 2 | 4, value: number): void {
    const at = this.#step(bytes);
    if (bytes === 4) {
      this.#view.setUint32(at, value, true);
    } else if (bytes === 2) {
      this.#view.setUint16(at, value, true);
    } else {
      this.#view.setUint8(at, value);
    }
  }

  get(bytes: 1 | 2 | 4): number {
    const at = this.#step(bytes);
    if (bytes === 4) {
      return this.#view.getUint32(at, true);
    }
    return bytes === 2 ? this.#view.getUint16(at, true) : this.#view.getUint8(at);
  }

  bytes(count: number): Uint8Array {
    return new Uint8Array(this.#buffer, this.#step(count), count);
  }

  #step(bytes: number): number {
    const at = this.#at;
    if (at + bytes > this.#buffer.byteLength) {
      throw broken();
    }
    this.#at = at + bytes;
    return at;
  }
}

function broken(): UbiError {
  return new UbiError(
    "E_UPGRADE",
    "the secrets that were handed over are not as they were written",
  );
}
