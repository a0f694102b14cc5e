/** A client of the RPC socket, made with nothing of the product. */
import { connect, type Socket } from "node:net";

const TIMEOUT_MS = 30_000;

/** Sends `text`, ends the stream and waits for the other end: all that came back. */
export function converse(path: string, text: string | Uint8Array): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect({ path, allowHalfOpen: true, timeout: TIMEOUT_MS });
    let answer = "";
    socket.setEncoding("utf8");
    socket.on("data", (part) => {
      answer += part;
    });
    socket.on("end", () => {
      socket.destroy();
      resolve(answer);
    });
    socket.on("timeout", () => {
      socket.destroy();
      reject(new Error(`no end of the answer after ${TIMEOUT_MS} ms; so far: ${answer}`));
    });
    socket.on("error", reject);
    socket.end(text);
  });
}

/** The parsed answer to one command. */
export async function ask(path: string, command: string): Promise<unknown> {
  return JSON.parse(await converse(path, `${JSON.stringify({ command })}\n`));
}

/** A connection that stays open; `received` grows by itself. */
export class RpcClient implements Disposable {
  readonly #socket: Socket;
  received = "";
  isEnded = false;

  constructor(path: string) {
    this.#socket = connect({ path });
    this.#socket.setEncoding("utf8");
    this.#socket.on("data", (part) => {
      this.received += part;
    });
    this.#socket.on("error", () => {}); // an end like any other
    this.#socket.on("close", () => {
      this.isEnded = true;
    });
  }

  send(text: string | Uint8Array): void {
    this.#socket.write(text);
  }

  /** Leaves what comes in the kernel from now on. */
  stopReading(): void {
    this.#socket.pause();
  }

  /** Waits until `condition` holds. @throws Error after 30 s */
  async until(condition: () => boolean): Promise<void> {
    const endMs = performance.now() + TIMEOUT_MS;
    while (!condition()) {
      if (performance.now() > endMs) {
        throw new Error(`waited in vain; received: ${this.received.slice(0, 1000)}`);
      }
      await Bun.sleep(5);
    }
  }

  [Symbol.dispose](): void {
    this.#socket.destroy();
  }
}
