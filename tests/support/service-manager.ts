/** A service under a small service manager: what the service tells it, and sockets that the manager opened. */
import { closeSync, openSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";

const SCRIPT = resolve(import.meta.dir, "service-manager.py");
const STOP_TIMEOUT_MS = 20_000;

/** A socket, or a file in the place of one, that the service is started with. */
export type ManagedSocket = { readonly name?: string } & (
  | { readonly path: string; readonly type?: number }
  | { readonly port: number }
  | { readonly file: string }
);

export interface ManagedOptions {
  readonly folder: string;
  readonly command: readonly string[];
  /** `@name` for an abstract socket. */
  readonly notify?: string;
  readonly watchdogMs?: number;
  readonly sockets?: readonly ManagedSocket[];
  readonly env?: Readonly<Record<string, string>>;
  /** For whom the sockets are said to be; the service itself when left out. */
  readonly listenPid?: number;
}

/** A datagram: when it came, and its lines. */
export interface Notice {
  readonly ms: number;
  readonly lines: readonly string[];
}

export class ManagedService implements AsyncDisposable {
  readonly #child: Bun.Subprocess;
  readonly #storyPath: string;
  readonly #logPath: string;

  constructor(options: ManagedOptions) {
    const { folder, watchdogMs = 0, sockets = [], env = {}, listenPid = 0 } = options;
    const notify = options.notify ?? join(folder, "notify");
    this.#storyPath = join(folder, "story");
    this.#logPath = join(folder, "service.log");
    const story = openSync(this.#storyPath, "w");
    const log = openSync(this.#logPath, "w");
    const settings = { notify, watchdogUsec: watchdogMs * 1000, sockets, env, listenPid };
    this.#child = Bun.spawn(["python3", SCRIPT, JSON.stringify(settings), ...options.command], {
      cwd: folder,
      stdio: ["ignore", story, log],
      env: { ...process.env, UBIBLK_LOG: "info" },
    });
    closeSync(story);
    closeSync(log);
  }

  get notices(): readonly Notice[] {
    return this.#events()
      .filter((event) => typeof event.text === "string")
      .map(({ ms, text }) => ({ ms: Number(ms), lines: String(text).split("\n") }));
  }

  /** Whether the service has told this line. */
  hasTold(line: string): boolean {
    return this.notices.some(({ lines }) => lines.includes(line));
  }

  /** Of the first TCP socket that was asked for. */
  get port(): number {
    return Number(this.#events().find((event) => event.port !== undefined)?.port ?? 0);
  }

  get log(): string {
    return readFileSync(this.#logPath, "utf8");
  }

  /** Waits for the end that comes by itself: the exit code of the service. */
  async ended(): Promise<number> {
    await this.#child.exited;
    return Number(this.#events().find((event) => event.exit !== undefined)?.exit ?? Number.NaN);
  }

  /** Asks it to end and waits: its exit code. */
  async stop(): Promise<number> {
    this.#child.kill("SIGTERM");
    return await this.ended();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill("SIGTERM");
    const timer = setTimeout(() => this.#child.kill("SIGKILL"), STOP_TIMEOUT_MS);
    await this.#child.exited;
    clearTimeout(timer);
  }

  // --- internal ---

  #events(): readonly Readonly<Record<string, unknown>>[] {
    const whole = readFileSync(this.#storyPath, "utf8").split("\n").slice(0, -1);
    return whole.map((line) => JSON.parse(line));
  }
}
