/** Connects to the first address of a server that answers, each within its time. Nothing here waits. */
import { assert, errnoText } from "../errors.ts";
import { closeDescriptor } from "../ffi/socket.ts";
import { beginConnection, beginPathConnection, connectionResult } from "../ffi/stream.ts";
import type { ServerAddress } from "./server-address.ts";

export class ServerDial {
  readonly #address: ServerAddress;
  readonly #hosts: readonly string[];
  readonly #timeoutMs: number;
  #host = -1;
  #fd = -1;
  #dueMs = 0;
  #failures: string[] = [];

  /** Begins. @param hosts literal addresses, or the path of a socket, tried in order */
  constructor(
    address: ServerAddress,
    options: {
      readonly hosts: readonly string[];
      readonly timeoutMs: number;
      readonly nowMs: number;
    },
  ) {
    this.#address = address;
    this.#hosts = options.hosts;
    this.#timeoutMs = options.timeoutMs;
    this.#beginNext(options.nowMs);
  }

  /** To be polled for writing; -1 when no address answered. */
  get fd(): number {
    return this.#fd;
  }

  get dueMs(): number {
    return this.#dueMs;
  }

  /** Why no address answered. */
  get failure(): string {
    return this.#failures.length === 0 ? "it has no address" : this.#failures.join(", ");
  }

  /** The descriptor can be written: true when it is connected, and the caller's. */
  finish(nowMs: number): boolean {
    const result = connectionResult(this.#fd);
    if (result < 0) {
      this.#leaveHost(errnoText(result), nowMs);
      return false;
    }
    return true;
  }

  /** The time of the current address is over. */
  expire(nowMs: number): void {
    this.#leaveHost(`no answer in ${this.#timeoutMs} ms`, nowMs);
  }

  /** Takes the descriptor out. */
  take(): number {
    assert(this.#fd >= 0, "a descriptor is taken once");
    const fd = this.#fd;
    this.#fd = -1;
    return fd;
  }

  // --- internal ---

  #leaveHost(why: string, nowMs: number): void {
    this.#failures.push(`${this.#hosts[this.#host]}: ${why}`);
    closeDescriptor(this.take());
    this.#beginNext(nowMs);
  }

  #beginNext(nowMs: number): void {
    while (this.#fd < 0) {
      this.#host += 1;
      const host = this.#hosts[this.#host];
      if (host === undefined) {
        return;
      }
      const address = this.#address;
      const fd =
        address.kind === "unix" ? beginPathConnection(host) : beginConnection(host, address.port);
      if (fd < 0) {
        this.#failures.push(`${host}: ${errnoText(fd)}`);
      } else {
        this.#fd = fd;
        this.#dueMs = nowMs + this.#timeoutMs;
      }
    }
  }
}
