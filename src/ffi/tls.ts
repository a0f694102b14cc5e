/**
 * TLS 1.2 with a pre-shared key (PSK-AES256-GCM-SHA384 and nothing else) on connected descriptors
 * (ffi/ssl/tls.h). Contexts and their sessions belong to the thread that made them.
 */
import type { Pointer } from "bun:ffi";
import { assert, errnoText, UbiError } from "../errors.ts";
import { Arena } from "./arena.ts";
import { type ByteStream, TLS_FAILED } from "./byte-stream.ts";
import { wipeMemory } from "./memory.ts";
import { closeDescriptor } from "./socket.ts";
import { linkSsl } from "./ssl-library.ts";

/** What both sides know. The secret is raw bytes, 16 to 512; the identity 1 to 255 bytes without a NUL. */
export interface PskCredentials {
  readonly identity: Uint8Array;
  readonly secret: Uint8Array;
}

const PSK_IDENTITY_BYTES_MAX = 255;
const PSK_SECRET_BYTES_MAX = 512;

/** The key of one side, ready for sessions. Sessions may outlive it, once their handshake is done. */
export class TlsContext implements Disposable {
  readonly #native = linkTls();
  #context: Pointer | undefined;

  /** @throws UbiError E_NATIVE_LIBRARY, E_MEMORY */
  constructor(role: "client" | "server", credentials: PskCredentials) {
    this.#context = this.#create(role, credentials);
  }

  /** A session on `fd`, which it closes at its end. @throws UbiError E_MEMORY, with `fd` closed */
  session(fd: number): ByteStream {
    assert(this.#context !== undefined, "a context that is gone opens no session");
    const session = this.#native.ubi_tls_open(this.#context, fd);
    if (session === null) {
      closeDescriptor(fd);
      throw new UbiError("E_MEMORY", "cannot open a TLS session: out of memory");
    }
    return new TlsStream(this.#native, Number(session) as Pointer, fd); // a bigint only in the types
  }

  /** Wipes the key. */
  [Symbol.dispose](): void {
    if (this.#context !== undefined) {
      this.#native.ubi_tls_destroy(this.#context);
      this.#context = undefined;
    }
  }

  // --- internal ---

  #create(role: "client" | "server", { identity, secret }: PskCredentials): Pointer {
    assert(identity.length > 0, "an identity is not empty");
    assert(identity.length <= PSK_IDENTITY_BYTES_MAX, "an identity is not too long");
    assert(!identity.includes(0), "an identity has no NUL");
    assert(secret.length > 0, "a secret is not empty");
    assert(secret.length <= PSK_SECRET_BYTES_MAX, "a secret is not too long");
    using arena = new Arena(KEY.BYTES);
    const words = arena.words(KEY.BYTES / 4);
    const bytes = new Uint8Array(words.view.buffer, words.view.byteOffset, KEY.BYTES);
    words.view[0] = role === "server" ? 1 : 0;
    words.view[1] = identity.length;
    words.view[2] = secret.length;
    bytes.set(identity, KEY.IDENTITY);
    bytes.set(secret, KEY.SECRET);
    const context = this.#native.ubi_tls_create(words.address as Pointer);
    wipeMemory(words.address, KEY.BYTES);
    if (context === null) {
      throw new UbiError("E_MEMORY", "cannot prepare TLS: out of memory");
    }
    return Number(context) as Pointer; // a bigint only in the types
  }
}

// --- internal ---

/** struct ubi_tls_key: three words, then room for the identity with a NUL, then the secret. */
const KEY = { IDENTITY: 12, SECRET: 268, BYTES: 780 } as const;
const PROBLEM_BYTES_MAX = 160;
/** Large enough that the storage of a typed array never moves. */
const TEXT_BYTES = 4096;

let linked: ReturnType<typeof linkNow> | undefined;

/** At the first use only: the library is large, and few need it. */
function linkTls() {
  linked ??= linkNow();
  return linked;
}

function linkNow() {
  return linkSsl({
    ubi_tls_create: { args: ["ptr"], returns: "ptr" },
    ubi_tls_destroy: { args: ["ptr"], returns: "void" },
    ubi_tls_open: { args: ["ptr", "i32"], returns: "ptr" },
    ubi_tls_close: { args: ["ptr"], returns: "void" },
    ubi_tls_handshake: { args: ["ptr"], returns: "i32" },
    ubi_tls_read: { args: ["ptr", "ptr", "u32"], returns: "i32" },
    ubi_tls_write: { args: ["ptr", "ptr", "u32"], returns: "i32" },
    ubi_tls_problem: { args: ["ptr", "ptr", "u32"], returns: "i32" },
  });
}

class TlsStream implements ByteStream {
  readonly fd: number;
  readonly #native: ReturnType<typeof linkTls>;
  readonly #session: Pointer;
  #isDisposed = false;

  constructor(native: ReturnType<typeof linkTls>, session: Pointer, fd: number) {
    this.#native = native;
    this.#session = session;
    this.fd = fd;
  }

  handshake(): number {
    assert(!this.#isDisposed, "a session is used until its end");
    return this.#native.ubi_tls_handshake(this.#session);
  }

  read(address: number, lengthBytes: number): number {
    assert(!this.#isDisposed, "a session is used until its end");
    assert(lengthBytes > 0, "a read has room");
    return this.#native.ubi_tls_read(this.#session, address as Pointer, lengthBytes);
  }

  write(address: number, lengthBytes: number): number {
    assert(!this.#isDisposed, "a session is used until its end");
    assert(lengthBytes > 0, "a write has bytes");
    return this.#native.ubi_tls_write(this.#session, address as Pointer, lengthBytes);
  }

  problem(result: number): string {
    if (result !== TLS_FAILED) {
      return errnoText(result);
    }
    const bytes = new Uint8Array(TEXT_BYTES);
    const length = this.#native.ubi_tls_problem(this.#session, bytes, PROBLEM_BYTES_MAX);
    return `TLS: ${new TextDecoder().decode(bytes.subarray(0, length))}`;
  }

  [Symbol.dispose](): void {
    if (!this.#isDisposed) {
      this.#isDisposed = true;
      this.#native.ubi_tls_close(this.#session);
      closeDescriptor(this.fd);
    }
  }
}
