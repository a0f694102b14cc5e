/** Unix sockets with descriptor passing (ffi/socket.h). Results: counts, descriptors or negative errno. */
import type { Pointer } from "bun:ffi";
import { assert, errnoText, UbiError } from "../errors.ts";
import { Arena, type ArenaView } from "./arena.ts";
import { link } from "./library.ts";
import { i32, u32 } from "./view.ts";

const native = link({
  ubi_socket_listen: { args: ["ptr", "u32", "u32", "u32", "u32"], returns: "i32" },
  ubi_socket_adopt: { args: ["i32"], returns: "i32" },
  ubi_socket_path: { args: ["i32", "ptr", "u32"], returns: "i32" },
  ubi_socket_tell: { args: ["ptr", "ptr", "u32", "i32"], returns: "i32" },
  ubi_socket_probe: { args: ["ptr"], returns: "i32" },
  ubi_socket_connect: { args: ["ptr"], returns: "i32" },
  ubi_socket_pair: { args: ["ptr"], returns: "i32" },
  ubi_socket_accept: { args: ["i32"], returns: "i32" },
  ubi_socket_receive: { args: ["i32", "ptr", "u32", "ptr", "u32", "ptr"], returns: "i32" },
  ubi_socket_send: { args: ["i32", "ptr", "u32", "ptr", "u32"], returns: "i32" },
  ubi_socket_wait: { args: ["ptr", "u32", "i32"], returns: "i32" },
  ubi_socket_close: { args: ["i32"], returns: "i32" },
});

export const POLLIN = 1;
export const POLLOUT = 4;

/** Who may connect to a socket's file. Without an owner or a group it has those that it gets by itself. */
export interface SocketRights {
  readonly mode: number;
  readonly owner?: number | undefined;
  readonly group?: number | undefined;
}

/** Listens at `path`; the socket file has its rights before anyone can connect. */
export function listenSocket(path: string, rights: SocketRights, backlog: number): number {
  const { mode, owner = KEPT, group = KEPT } = rights;
  return native.ubi_socket_listen(pathBytes(path), mode, owner, group, backlog);
}

/** Takes over a listening stream socket that this process was started with; undefined for any other descriptor. */
export function adoptSocket(fd: number): "unix" | "internet" | undefined {
  return ([undefined, "unix", "internet"] as const)[native.ubi_socket_adopt(fd)];
}

/** The path of a Unix socket (`@name` for an abstract one); nothing when it has none. */
export function pathOfSocket(fd: number): string {
  const bytes = new Uint8Array(PATH_STORAGE_BYTES);
  const length = native.ubi_socket_path(fd, bytes, PATH_STORAGE_BYTES);
  return length > 0 ? new TextDecoder().decode(bytes.subarray(0, length)) : "";
}

/** Sends a datagram to a Unix socket (`@name` for an abstract one). 0, or -EAGAIN (-11) when there is no room in time. */
export function tellSocket(path: string, text: string, waitMs: number): number {
  if (path.length > ADDRESS_LENGTH_MAX) {
    return ENAMETOOLONG;
  }
  const bytes = new Uint8Array(DATAGRAM_BYTES_MAX);
  const { written } = new TextEncoder().encodeInto(text, bytes);
  return native.ubi_socket_tell(pathBytes(path), bytes, written, waitMs);
}

/** 0 when someone listens at `path`, -ECONNREFUSED (-111) when the socket file is an orphan. */
export function probeSocket(path: string): number {
  return native.ubi_socket_probe(pathBytes(path));
}

/** A blocking connection to the socket at `path`. */
export function connectSocket(path: string): number {
  return native.ubi_socket_connect(pathBytes(path));
}

/**
 * Two sockets that are connected with each other, non-blocking, and keep the borders of messages.
 * @throws UbiError E_SOCKET
 */
export function pairOfSockets(): readonly [number, number] {
  using arena = new Arena(64);
  const { address, view } = arena.signedWords(2);
  const result = native.ubi_socket_pair(address as Pointer);
  if (result < 0) {
    throw new UbiError("E_SOCKET", `cannot make a pair of sockets: ${errnoText(result)}`);
  }
  return [i32(view, 0), i32(view, 1)];
}

/** A non-blocking connection, or -EAGAIN (-11) when nobody waits. */
export function acceptSocket(fd: number): number {
  return native.ubi_socket_accept(fd);
}

/** Sends what there is room for, without waiting: how many bytes that was, or -EAGAIN (-11). */
export function sendBytes(fd: number, bytes: Uint8Array): number {
  return native.ubi_socket_send(fd, bytes, bytes.length, null, 0);
}

export function closeDescriptor(fd: number): number {
  return native.ubi_socket_close(fd);
}

/** Buffers for messages with descriptors; one per connection. */
export class MessageChannel implements Disposable {
  static readonly DESCRIPTORS_MAX = 64;
  readonly bytes: Uint8Array;
  readonly #arena: Arena;
  readonly #buffer: ArenaView<Uint8Array>;
  readonly #descriptors: ArenaView<Int32Array>;
  readonly #count: ArenaView<Uint32Array>;

  constructor(lengthBytes: number) {
    this.#arena = new Arena(lengthBytes + 1024);
    this.#buffer = this.#arena.bytes(lengthBytes);
    this.#descriptors = this.#arena.signedWords(MessageChannel.DESCRIPTORS_MAX);
    this.#count = this.#arena.words(1);
    this.bytes = this.#buffer.view;
  }

  /** Reads into `bytes` from `offset`; descriptors that came along are appended to `descriptors`. */
  receive(fd: number, offset: number, lengthBytes: number, descriptors: number[]): number {
    assert(offset + lengthBytes <= this.bytes.length, "a message fits its buffer");
    const received = native.ubi_socket_receive(
      fd,
      (this.#buffer.address + offset) as Pointer,
      lengthBytes,
      this.#descriptors.address as Pointer,
      MessageChannel.DESCRIPTORS_MAX,
      this.#count.address as Pointer,
    );
    for (let i = 0; i < u32(this.#count.view, 0); i++) {
      descriptors.push(i32(this.#descriptors.view, i));
    }
    return received;
  }

  /** Sends `lengthBytes` of `bytes` from `offset`, with `descriptors` (at most 64). */
  send(fd: number, offset: number, lengthBytes: number, descriptors: readonly number[]): number {
    assert(offset + lengthBytes <= this.bytes.length, "a message fits its buffer");
    this.#descriptors.view.set(descriptors);
    return native.ubi_socket_send(
      fd,
      (this.#buffer.address + offset) as Pointer,
      lengthBytes,
      this.#descriptors.address as Pointer,
      descriptors.length,
    );
  }

  [Symbol.dispose](): void {
    this.#arena[Symbol.dispose]();
  }
}

/** One bounded wait over a fixed number of descriptors, as poll(2). */
export class PollSet implements Disposable {
  readonly #arena: Arena;
  readonly #entries: ArenaView<Int32Array>;
  readonly #count: number;

  constructor(count: number) {
    this.#count = count;
    this.#arena = new Arena(count * 8 + 64);
    this.#entries = this.#arena.signedWords(count * 2);
  }

  /** Watches `fd` in place `index` for POLLIN, POLLOUT or both (and always for errors); -1 empties the place. */
  watch(index: number, fd: number, events = POLLIN): void {
    this.#entries.view[index * 2] = fd;
    this.#entries.view[index * 2 + 1] = events;
  }

  /**
   * Number of ready places, 0 after `timeoutMs` (-1 = no limit; 12 days at most) or an interruption, or a negative
   * errno.
   */
  wait(timeoutMs: number): number {
    const limitMs = Math.min(timeoutMs, WAIT_MS_MAX); // a word of the system call
    return native.ubi_socket_wait(this.#entries.address as Pointer, this.#count, limitMs);
  }

  /** What poll(2) found at `index`: POLLIN, POLLHUP, POLLERR bits. */
  events(index: number): number {
    return i32(this.#entries.view, index * 2 + 1) >>> 16;
  }

  [Symbol.dispose](): void {
    this.#arena[Symbol.dispose]();
  }
}

// --- internal ---

const WAIT_MS_MAX = 2 ** 30;
/** An owner or group that is left as it is. */
const KEPT = 2 ** 32 - 1;
const PATH_STORAGE_BYTES = 4096;
/** Of what no socket can have as its address. */
const ADDRESS_LENGTH_MAX = 107;
const ENAMETOOLONG = -36;
/** Text behind it is cut off. Large enough that its storage never moves. */
const DATAGRAM_BYTES_MAX = 2048;

/** NUL-terminated; large enough that its storage never moves. */
function pathBytes(path: string): Uint8Array {
  const bytes = new Uint8Array(PATH_STORAGE_BYTES);
  const room = bytes.subarray(0, PATH_STORAGE_BYTES - 1);
  const { written } = new TextEncoder().encodeInto(path, room);
  assert(written < room.length, "a socket path is checked before it is used");
  return bytes;
}
