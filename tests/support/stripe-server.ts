/** The compiled stripe server under test, and a client of its own code: bytes in, bytes out, over TCP or Unix sockets. */
import { closeSync, openSync, readFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { EXECUTABLE } from "./backend.ts";

const TIMEOUT_MS = 20_000;

export interface RunningServer extends AsyncDisposable {
  readonly pid: number;
  /** Of the TCP socket; 0 when there is only a Unix socket. */
  readonly port: number;
  log(): string;
  isRunning(): boolean;
  /** SIGTERM; its exit code. */
  stop(): Promise<number>;
}

/**
 * Starts `ubiblk stripe-server` with these flags in a folder, and waits until it listens.
 * @param wrapper a program that runs it, such as prlimit
 */
export async function startStripeServer(
  folder: string,
  flags: readonly string[],
  wrapper: readonly string[] = [],
): Promise<RunningServer> {
  const logPath = `${folder}/server.log`;
  const logFd = openSync(logPath, "w");
  const child = Bun.spawn([...wrapper, EXECUTABLE, "stripe-server", ...flags], {
    cwd: folder,
    stdin: "ignore",
    stdout: logFd,
    stderr: logFd,
    env: { ...process.env, UBIBLK_LOG: "info" },
  });
  closeSync(logFd);
  const log = () => readFileSync(logPath, "utf8");
  const isRunning = () => child.exitCode === null && child.signalCode === null;
  const stop = async () => {
    child.kill("SIGTERM");
    const timer = setTimeout(() => child.kill("SIGKILL"), TIMEOUT_MS);
    const code = await child.exited;
    clearTimeout(timer);
    return code;
  };
  const deadlineMs = performance.now() + TIMEOUT_MS;
  while (!log().includes("listening on ")) {
    if (!isRunning() || performance.now() > deadlineMs) {
      await stop();
      throw new Error(`the stripe server does not listen:\n${log()}`);
    }
    await Bun.sleep(5);
  }
  const port = Number(/listening on [^\n]*?:(\d+) /.exec(log())?.[1] ?? 0);
  return {
    pid: child.pid,
    port,
    log,
    isRunning,
    stop,
    [Symbol.asyncDispose]: async () => {
      await stop();
    },
  };
}

/** One connection. */
export class RawClient implements Disposable {
  readonly #socket: Socket;
  #received: Buffer[] = [];
  #isEnded = false;
  #wake = Promise.withResolvers<void>();

  static async connect(target: number | string): Promise<RawClient> {
    const socket =
      typeof target === "number" ? connect(target, "127.0.0.1") : connect({ path: target });
    const client = new RawClient(socket);
    await new Promise<void>((resolve, reject) => {
      socket.once("connect", () => resolve());
      socket.once("error", reject);
    });
    return client;
  }

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on("data", (bytes: Buffer) => {
      this.#received.push(bytes);
      this.#stir();
    });
    const end = () => {
      this.#isEnded = true;
      this.#stir();
    };
    socket.on("end", end).on("close", end).on("error", end);
  }

  send(...bytes: readonly (number | Uint8Array)[]): void {
    for (const each of bytes) {
      this.#socket.write(typeof each === "number" ? Uint8Array.of(each) : each);
    }
  }

  /** Nothing more is sent. */
  endSending(): void {
    this.#socket.end();
  }

  /** Nothing is received until `resume`. */
  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  /** Exactly so many bytes. @throws Error when fewer come */
  async take(count: number): Promise<Buffer> {
    const deadlineMs = performance.now() + TIMEOUT_MS;
    while (this.#available() < count) {
      if (this.#isEnded || performance.now() > deadlineMs) {
        const what = this.#isEnded ? "the server closed the connection" : "nothing more came";
        throw new Error(`${what} after ${this.#available()} of ${count} bytes`);
      }
      await Promise.race([this.#wake.promise, Bun.sleep(200)]);
    }
    const whole = Buffer.concat(this.#received);
    this.#received = [whole.subarray(count)];
    return whole.subarray(0, count);
  }

  /** All that comes until the server closes. */
  async rest(): Promise<Buffer> {
    const deadlineMs = performance.now() + TIMEOUT_MS;
    while (!this.#isEnded) {
      if (performance.now() > deadlineMs) {
        throw new Error("the server does not close the connection");
      }
      await Promise.race([this.#wake.promise, Bun.sleep(200)]);
    }
    return Buffer.concat(this.#received);
  }

  [Symbol.dispose](): void {
    this.#socket.destroy();
  }

  // --- internal ---

  #available(): number {
    return this.#received.reduce((sum, bytes) => sum + bytes.length, 0);
  }

  #stir(): void {
    this.#wake.resolve();
    this.#wake = Promise.withResolvers<void>();
  }
}

/** A request for a stripe, by hand: opcode, then u64 little-endian. */
export function readRequest(stripe: number | bigint, opcode = 0x01): Uint8Array {
  const bytes = new Uint8Array(9);
  bytes[0] = opcode;
  new DataView(bytes.buffer).setBigUint64(1, BigInt(stripe), true);
  return bytes;
}
