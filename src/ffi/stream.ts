/** Stream sockets that never block (ffi/stream.h). Results: descriptors, counts or negative errno. */
import type { Pointer } from "bun:ffi";
import { assert, errnoText } from "../errors.ts";
import { type ByteStream, STREAM_READY, WANT_READ, WANT_WRITE } from "./byte-stream.ts";
import { link } from "./library.ts";
import { closeDescriptor } from "./socket.ts";

const native = link({
  ubi_stream_connect: { args: ["ptr", "u32"], returns: "i32" },
  ubi_stream_connect_path: { args: ["ptr"], returns: "i32" },
  ubi_stream_error: { args: ["i32"], returns: "i32" },
  ubi_stream_listen: { args: ["ptr", "u32", "u32"], returns: "i32" },
  ubi_stream_port: { args: ["i32"], returns: "i32" },
  ubi_stream_peer: { args: ["i32", "ptr", "u32"], returns: "i32" },
  ubi_stream_local: { args: ["i32", "ptr", "u32"], returns: "i32" },
  ubi_stream_tune: { args: ["i32"], returns: "i32" },
  ubi_stream_untaken: { args: ["i32"], returns: "i32" },
  ubi_stream_read: { args: ["i32", "ptr", "u32"], returns: "i32" },
  ubi_stream_write: { args: ["i32", "ptr", "u32"], returns: "i32" },
});

/** Begins a connection to a literal IP address. It can be written when `connectionResult` is known. */
export function beginConnection(host: string, port: number): number {
  return native.ubi_stream_connect(textBytes(host), port);
}

/** Begins a connection to a Unix socket; -EAGAIN (-11) when its backlog is full. */
export function beginPathConnection(path: string): number {
  return native.ubi_stream_connect_path(textBytes(path));
}

/** 0 when a connection that can be written is established, else the negative errno of its failure. */
export function connectionResult(fd: number): number {
  return native.ubi_stream_error(fd);
}

/** Listens at a literal IP address; port 0 takes any free one. Accept with `acceptSocket` (socket.ts). */
export function listenStream(host: string, port: number, backlog: number): number {
  return native.ubi_stream_listen(textBytes(host), port, backlog);
}

/** The port of a listening TCP socket, 0 of any other. */
export function portOf(fd: number): number {
  return native.ubi_stream_port(fd);
}

/** The other end of a connection as `address:port`, or nothing when it has no address. */
export function peerOf(fd: number): string {
  return nameBy(native.ubi_stream_peer, fd);
}

/** This end, in the same form. */
export function localNameOf(fd: number): string {
  return nameBy(native.ubi_stream_local, fd);
}

/** No delay for small writes and keep-alive probes; does nothing to Unix sockets. */
export function tuneStream(fd: number): number {
  return native.ubi_stream_tune(fd);
}

/** Bytes that were written and that the other end has not got yet; 0 when that is not known. */
export function untakenBytes(fd: number): number {
  return Math.max(0, native.ubi_stream_untaken(fd));
}

/** A connection in the clear. It closes its descriptor at its end. */
export class PlainStream implements ByteStream {
  readonly fd: number;
  #isDisposed = false;

  constructor(fd: number) {
    assert(fd >= 0, "a stream has a descriptor");
    this.fd = fd;
  }

  handshake(): number {
    return STREAM_READY;
  }

  read(address: number, lengthBytes: number): number {
    const result = native.ubi_stream_read(this.fd, address as Pointer, lengthBytes);
    return result === EAGAIN ? WANT_READ : result;
  }

  write(address: number, lengthBytes: number): number {
    const result = native.ubi_stream_write(this.fd, address as Pointer, lengthBytes);
    return result === EAGAIN ? WANT_WRITE : result;
  }

  problem(result: number): string {
    return errnoText(result);
  }

  [Symbol.dispose](): void {
    if (!this.#isDisposed) {
      this.#isDisposed = true;
      closeDescriptor(this.fd);
    }
  }
}

// --- internal ---

const EAGAIN = -11;
/** Large enough that the storage of a typed array never moves. */
const TEXT_BYTES = 4096;
const NAME_BYTES_MAX = 144;

function nameBy(
  ask: (fd: number, bytes: Uint8Array, lengthBytes: number) => number,
  fd: number,
): string {
  const bytes = new Uint8Array(TEXT_BYTES);
  const length = ask(fd, bytes, NAME_BYTES_MAX);
  return length > 0 ? new TextDecoder().decode(bytes.subarray(0, length)) : "";
}

function textBytes(text: string): Uint8Array {
  const bytes = new Uint8Array(TEXT_BYTES);
  const { written } = new TextEncoder().encodeInto(text, bytes.subarray(0, TEXT_BYTES - 1));
  assert(written < TEXT_BYTES - 1, "an address is checked before it is used");
  return bytes;
}
