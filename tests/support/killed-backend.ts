/** A backend that is killed with -9 and started again while a front end uses it, which has to outlive that. */
import { runCommand } from "../../scripts/command.ts";
import { type Backend, EXECUTABLE } from "./backend.ts";
import { until } from "./until.ts";

/** A disk under load may take long over the last I/O of a dead process, which is waited for. */
const WAIT_MS = 120_000;

export interface BenchResult {
  readonly operations: number;
  readonly reconnects: number;
  readonly verified?: string;
}

export class KilledBackend implements AsyncDisposable {
  readonly #start: () => Promise<Backend>;
  #backend: Backend | undefined;
  #kills = 0;
  /** Front ends that this life of it had before. */
  #formerVisits = 0;
  #resumed = 0;

  /** @param start starts it, again and again; its log begins anew each time */
  constructor(start: () => Promise<Backend>) {
    this.#start = start;
  }

  get kills(): number {
    return this.#kills;
  }

  /** Lives that did requests again of the one before. */
  get resumed(): number {
    return this.#resumed;
  }

  async begin(): Promise<Backend> {
    this.#backend = await this.#start();
    this.#formerVisits = 0;
    return this.#backend;
  }

  /** Whoever is there now has done its work. */
  forgetVisit(): void {
    this.#formerVisits = this.#count("are tracked");
  }

  /** Kills it, starts it, and returns when a front end is there whose requests it tracks. */
  async kill(): Promise<void> {
    const dead = this.#backend;
    if (dead === undefined) {
      throw new Error("a backend begins before it is killed");
    }
    process.kill(dead.pid, "SIGKILL");
    await dead.stop();
    this.#kills += 1;
    this.#resumed += this.#count("requests are done again") > 0 ? 1 : 0;
    await this.begin();
  }

  /** Looks whether the front end came back to this life of the backend, which may not be so when its work is done. */
  async isInUse(isWorkDone: () => boolean): Promise<boolean> {
    await until(
      "a front end connects",
      () => isWorkDone() || this.#count("are tracked") > this.#formerVisits,
      WAIT_MS,
    );
    return !isWorkDone();
  }

  #count(text: string): number {
    return (this.#backend?.log() ?? "").split(text).length - 1;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#backend?.stop();
  }
}

/** A run of `ubiblk bench --reconnect`. @throws Error with what it printed when it does not end well */
export async function benchThatOutlives(
  socketPath: string,
  ...flags: readonly string[]
): Promise<BenchResult> {
  const command = [
    EXECUTABLE,
    "bench",
    `--socket=${socketPath}`,
    "--reconnect",
    "--json",
    "--timeout=120",
  ];
  const result = await runCommand([...command, ...flags], { timeoutMs: 300_000 });
  if (result.exitCode !== 0) {
    throw new Error(`${flags.join(" ")}: exit code ${result.exitCode}\n${result.stderr}`);
  }
  return JSON.parse(result.stdout) as BenchResult; // of our own executable
}
