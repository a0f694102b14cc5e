/**
 * A connection to an RPC socket: commands go out together, answers come back in the same order, one
 * line each. Connecting and answering have deadlines, and what a peer may send has a limit.
 */
import { connect, type Socket } from "node:net";
import { errorText, UbiError } from "../errors.ts";
import { recordOf } from "./json-reader.ts";
import type { Answers } from "./reading.ts";

/** Bytes of all answers to one question; those of a backend with 63 queues stay below 2 MiB. */
const ANSWER_BYTES_MAX = 16 * 2 ** 20;

/** What an error says when the peer neither took the connection nor answered in time. */
export const TIMEOUT_REASON = "no answer in time";
/** And when it took the connection and closed it. */
export const CLOSED_REASON = "the backend closed the connection";

/** The answers to the commands that were known, and the names of those that were not. */
export interface Exchange {
  readonly answers: Answers;
  readonly refused: readonly string[];
}

interface Waiter {
  readonly lineCount: number;
  readonly resolve: (lines: readonly string[]) => void;
  readonly reject: (error: UbiError) => void;
}

export class RpcConnection implements Disposable {
  readonly #socket: Socket;
  #received: string[] = [];
  #receivedBytes = 0;
  #newlines = 0;
  #waiter: Waiter | undefined;
  #end: UbiError | undefined;

  /** Connects within `timeoutMs`. @throws UbiError E_TOP */
  static open(path: string, timeoutMs: number): Promise<RpcConnection> {
    return new Promise((resolve, reject) => {
      const socket = connect({ path });
      const timer = setTimeout(() => fail(TIMEOUT_REASON), timeoutMs);
      const fail = (reason: string): void => {
        clearTimeout(timer);
        socket.destroy();
        reject(new UbiError("E_TOP", reason));
      };
      const failed = (error: Error): void => fail(reasonOf(error));
      socket.once("error", failed);
      socket.once("connect", () => {
        clearTimeout(timer);
        socket.off("error", failed);
        resolve(new RpcConnection(socket));
      });
    });
  }

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.setEncoding("utf8");
    socket.on("data", (part) => this.#receive(String(part)));
    socket.on("error", (error) => this.#close(reasonOf(error)));
    socket.on("close", () => this.#close(CLOSED_REASON));
  }

  get isClosed(): boolean {
    return this.#end !== undefined;
  }

  /**
   * Asks `commands` in one go; one question at a time.
   * @throws UbiError E_TOP without all answers in time; the connection is of no use any more then.
   */
  async ask(commands: readonly string[], timeoutMs: number): Promise<Exchange> {
    const timer = setTimeout(() => this.#close(TIMEOUT_REASON), timeoutMs);
    try {
      const lines = await this.#lines(commands);
      return exchangeOf(commands, lines);
    } finally {
      clearTimeout(timer);
    }
  }

  [Symbol.dispose](): void {
    this.#close("closed");
  }

  // --- internal ---

  #lines(commands: readonly string[]): Promise<readonly string[]> {
    return new Promise((resolve, reject) => {
      if (this.#end !== undefined) {
        reject(this.#end);
        return;
      }
      this.#waiter = { lineCount: commands.length, resolve, reject };
      this.#socket.write(commands.map((command) => `${JSON.stringify({ command })}\n`).join(""));
    });
  }

  #receive(part: string): void {
    const waiter = this.#waiter;
    this.#receivedBytes += part.length;
    if (waiter === undefined || this.#receivedBytes > ANSWER_BYTES_MAX) {
      this.#close("this is no RPC socket: it sends what was not asked for");
      return;
    }
    this.#received.push(part);
    this.#newlines += part.split("\n").length - 1;
    if (this.#newlines >= waiter.lineCount) {
      const lines = this.#received.join("").split("\n");
      this.#received = [];
      this.#receivedBytes = 0;
      this.#newlines = 0;
      this.#waiter = undefined;
      waiter.resolve(lines.slice(0, waiter.lineCount));
    }
  }

  #close(reason: string): void {
    if (this.#end !== undefined) {
      return;
    }
    const error = new UbiError("E_TOP", this.#refusal() ?? reason);
    this.#end = error;
    this.#socket.destroy();
    this.#waiter?.reject(error);
    this.#waiter = undefined;
  }

  /** A backend with too many clients says so in one line before it closes. */
  #refusal(): string | undefined {
    const [line] = this.#received.join("").split("\n", 1);
    const error = line === undefined || line === "" ? undefined : recordOf(parse(line)).error;
    return typeof error === "string" ? `refused: ${error.slice(0, 100)}` : undefined;
  }
}

// --- internal ---

function exchangeOf(commands: readonly string[], lines: readonly string[]): Exchange {
  const answers = new Map<string, Readonly<Record<string, unknown>>>();
  const refused: string[] = [];
  for (const [index, command] of commands.entries()) {
    const answer = recordOf(parse(lines[index] ?? ""));
    if (Object.hasOwn(answer, command)) {
      answers.set(command, answer);
    } else if (typeof answer.error === "string") {
      refused.push(command);
    } else {
      throw new UbiError("E_TOP", `this is no RPC socket: no answer to ${command}`);
    }
  }
  return { answers, refused };
}

/** Undefined for what is no JSON. */
function parse(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch (error) {
    if (!(error instanceof SyntaxError)) {
      throw error;
    }
    return undefined;
  }
}

function reasonOf(error: Error): string {
  const code = "code" in error && typeof error.code === "string" ? error.code : "";
  return REASONS[code] ?? errorText(error);
}

const REASONS: Readonly<Record<string, string>> = {
  ENOENT: "no socket there",
  ECONNREFUSED: "nobody listens",
  EACCES: "no permission",
  ENOTSOCK: "not a socket",
  EPIPE: CLOSED_REASON,
  ECONNRESET: CLOSED_REASON,
};
