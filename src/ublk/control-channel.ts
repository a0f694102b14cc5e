/**
 * How the driver's control device is asked: a command goes in, its result comes back, in a bounded time. The
 * kernel's own threads carry a command out, so that the main thread can go on meanwhile and give up waiting.
 */
import { constants, openSync } from "node:fs";
import { assert, errnoText, errorText, UbiError } from "../errors.ts";
import { Arena, type ArenaView } from "../ffi/arena.ts";
import { mapFile, unmap, viewOf } from "../ffi/memory.ts";
import { closeDescriptor } from "../ffi/socket.ts";
import { uringEnter, uringSetup } from "../ffi/uring.ts";
import { i32, u32 } from "../ffi/view.ts";
import { encodeControlCommand } from "../formats/ublk.ts";

export interface ControlCommand {
  readonly code: number;
  readonly device: number;
  readonly data?: number;
  /** Goes in; what the driver makes of it comes out in the same place. */
  readonly buffer?: Uint8Array;
}

/** The result of a command that did not end in time; it may still be carried out. */
export const TIMED_OUT = -110;

export interface ControlChannel extends Disposable {
  /** 0 or what the command counts, or a negative errno. One at a time. */
  run(command: ControlCommand, timeoutMs: number): Promise<number>;
}

const CONTROL_PATH = "/dev/ublk-control";
const IORING_OP_URING_CMD = 46;
const IORING_SETUP_SQE128 = 1 << 10;
const IORING_OFF_SQES = 0x1000_0000;
const IORING_ENTER_GETEVENTS = 1;
const ENTRIES = 8;
const SQE_WORDS = 32;
const COMMAND_WORD = 12;
const BUFFER_BYTES = 1024;
const LOOK_MS_MAX = 10;
const EINTR = -4;

export class KernelControlChannel implements ControlChannel {
  readonly #controlFd: number;
  readonly #fd: number;
  readonly #arena = new Arena(4096);
  readonly #buffer: ArenaView<Uint8Array>;
  readonly #rings: { readonly address: number; readonly lengthBytes: number };
  readonly #sqes: { readonly address: number; readonly lengthBytes: number };
  readonly #ring: Int32Array;
  readonly #sqe: Int32Array;
  readonly #params: ArenaView<Uint32Array>;
  #isDisposed = false;
  /** A command that was given up still owns the buffer: nothing is asked after it. */
  #isStuck = false;

  /** @throws UbiError E_UBLK_DRIVER, E_URING */
  static open(): KernelControlChannel {
    return new KernelControlChannel(openControl());
  }

  private constructor(controlFd: number) {
    this.#controlFd = controlFd;
    this.#params = this.#arena.words(30);
    this.#buffer = this.#arena.bytes(BUFFER_BYTES);
    const params = this.#params.view;
    params[2] = IORING_SETUP_SQE128;
    this.#fd = uringSetup(ENTRIES, this.#params.address);
    if (this.#fd < 0) {
      const why = errnoText(this.#fd);
      closeDescriptor(controlFd);
      throw new UbiError("E_URING", `ublk needs io_uring with entries of 128 bytes: ${why}`);
    }
    const ringBytes = Math.max(
      u32(params, 16) + u32(params, 0) * 4,
      u32(params, 25) + u32(params, 1) * 16,
    );
    this.#rings = mapped(this.#fd, 0, ringBytes);
    this.#sqes = mapped(this.#fd, IORING_OFF_SQES, u32(params, 0) * SQE_WORDS * 4);
    this.#ring = new Int32Array(viewOf(this.#rings.address, this.#rings.lengthBytes));
    this.#sqe = new Int32Array(viewOf(this.#sqes.address, this.#sqes.lengthBytes));
  }

  async run(command: ControlCommand, timeoutMs: number): Promise<number> {
    assert(!this.#isDisposed, "a closed channel is asked nothing");
    if (this.#isStuck) {
      return TIMED_OUT;
    }
    const { buffer } = command;
    assert((buffer?.length ?? 0) <= BUFFER_BYTES, "a command's buffer has room");
    this.#buffer.view.fill(0).set(buffer ?? []);
    this.#prepare(command);
    const result = await this.#wait(timeoutMs);
    buffer?.set(this.#buffer.view.subarray(0, buffer.length));
    return result;
  }

  /** A command that was given up is ended by the kernel when its ring goes. */
  [Symbol.dispose](): void {
    if (!this.#isDisposed) {
      this.#isDisposed = true;
      unmap(this.#sqes.address, this.#sqes.lengthBytes);
      unmap(this.#rings.address, this.#rings.lengthBytes);
      closeDescriptor(this.#fd);
      closeDescriptor(this.#controlFd);
      if (!this.#isStuck) {
        this.#arena[Symbol.dispose]();
      }
    }
  }

  // --- internal ---

  #offset(field: number): number {
    return u32(this.#params.view, field) / 4;
  }

  #prepare(command: ControlCommand): void {
    const tailAt = this.#offset(11);
    const tail = i32(this.#ring, tailAt);
    const place = tail & (u32(this.#params.view, 0) - 1);
    const at = place * SQE_WORDS;
    const lengthBytes = command.buffer?.length ?? 0;
    const bytes = encodeControlCommand({
      device: command.device,
      lengthBytes,
      address: lengthBytes === 0 ? 0 : this.#buffer.address,
      data: command.data ?? 0,
    });
    this.#sqe.fill(0, at, at + SQE_WORDS);
    this.#sqe[at] = IORING_OP_URING_CMD;
    this.#sqe[at + 1] = this.#controlFd;
    this.#sqe[at + 2] = command.code;
    this.#sqe.set(new Int32Array(bytes.buffer), at + COMMAND_WORD);
    this.#ring[this.#offset(16) + place] = place;
    Atomics.store(this.#ring, tailAt, tail + 1);
  }

  async #wait(timeoutMs: number): Promise<number> {
    const deadline = performance.now() + timeoutMs;
    let submit = 1;
    for (let lookMs = 0.5; ; lookMs = Math.min(lookMs * 2, LOOK_MS_MAX)) {
      const entered = uringEnter(this.#fd, submit, 0, IORING_ENTER_GETEVENTS);
      submit -= Math.max(entered, 0);
      if (entered < 0 && entered !== EINTR) {
        return entered;
      }
      const result = this.#take();
      if (result !== undefined) {
        return result;
      }
      if (performance.now() > deadline) {
        this.#isStuck = true;
        return TIMED_OUT;
      }
      await Bun.sleep(lookMs);
    }
  }

  /** The result of the command that has ended, if one has. */
  #take(): number | undefined {
    const headAt = this.#offset(20);
    const head = i32(this.#ring, headAt);
    if (Atomics.load(this.#ring, this.#offset(21)) === head) {
      return undefined;
    }
    const mask = u32(this.#params.view, 1) - 1;
    const result = i32(this.#ring, this.#offset(25) + (head & mask) * 4 + 2);
    Atomics.store(this.#ring, headAt, head + 1);
    return result;
  }
}

function mapped(fd: number, offsetBytes: number, lengthBytes: number) {
  return { address: mapFile({ fd, offsetBytes, lengthBytes, writable: true }), lengthBytes };
}

function openControl(): number {
  try {
    return openSync(CONTROL_PATH, constants.O_RDWR);
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    throw new UbiError(
      "E_UBLK_DRIVER",
      `cannot open ${CONTROL_PATH}: ${openFailure(code, error)}`,
      {
        cause: error,
      },
    );
  }
}

function openFailure(code: unknown, error: unknown): string {
  switch (code) {
    case "ENOENT":
    case "ENODEV":
    case "ENXIO":
      return "the kernel's ublk driver is not there; run modprobe ublk_drv (CONFIG_BLK_DEV_UBLK)";
    case "EACCES":
    case "EPERM":
      return "no permission; run as root, with CAP_SYS_ADMIN";
    default:
      return errorText(error);
  }
}
