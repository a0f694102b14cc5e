/**
 * TLS 1.2 with a pre-shared key (PSK-AES256-GCM-SHA384 and nothing else) on a connected descriptor
 * (ffi/ssl/tls.h). A session belongs to one thread; a context may be used by sessions of one thread.
 */
import { type ByteStream, STREAM_READY } from "./byte-stream.ts";

/** What both sides know. The secret is raw bytes, 16 to 512; the identity 1 to 255 bytes without a NUL. */
export interface PskCredentials {
  readonly identity: Uint8Array;
  readonly secret: Uint8Array;
}

/** The key of one side, ready for sessions. Sessions may outlive it. */
export class TlsContext implements Disposable {
  /** @throws UbiError E_TLS, E_NATIVE_LIBRARY */
  constructor(_role: "client" | "server", _credentials: PskCredentials) {}

  /** A session on `fd`, which it closes at its end (also when this throws). */
  session(_fd: number): ByteStream {
    throw new Error(`${STREAM_READY}`);
  }

  [Symbol.dispose](): void {}
}
