/** A control group that limits memory, of either version of the kernel's interface. Needs root. */
import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { until } from "./until.ts";

const V1 = "/sys/fs/cgroup/memory";
const V2 = "/sys/fs/cgroup";

/** A reason why there is none here, or undefined. */
export function missingMemoryGroup(): string | undefined {
  if (process.getuid?.() !== 0) {
    return "control groups need root";
  }
  try {
    new MemoryGroup(2 ** 30).remove();
    return undefined;
  } catch (error) {
    return `no control group for memory: ${error instanceof Error ? error.message : error}`;
  }
}

let made = 0;

export class MemoryGroup {
  readonly #path: string;
  readonly #names: { readonly limit: string; readonly peak: string };

  /** @throws Error when the system refuses */
  constructor(limitBytes: number) {
    const isFirstVersion = existsSync(V1);
    made += 1;
    this.#path = join(isFirstVersion ? V1 : V2, `ubiblk-memory-${process.pid}-${made}`);
    this.#names = isFirstVersion
      ? { limit: "memory.limit_in_bytes", peak: "memory.max_usage_in_bytes" }
      : { limit: "memory.max", peak: "memory.peak" };
    mkdirSync(this.#path);
    try {
      this.limit(limitBytes);
      this.#forbidSwap();
    } catch (error) {
      rmdirSync(this.#path);
      throw error;
    }
  }

  limit(bytes: number): void {
    writeFileSync(join(this.#path, this.#names.limit), String(bytes));
  }

  /** The most that its processes had at a time, page cache included. */
  get peakBytes(): number {
    return Number(readFileSync(join(this.#path, this.#names.peak), "utf8"));
  }

  /** What no reclaim can take from them: memory of their own. */
  get floorBytes(): number {
    const facts = readFileSync(join(this.#path, "memory.stat"), "utf8");
    return Number(/^(?:total_rss|anon) (\d+)$/m.exec(facts)?.[1]);
  }

  /** What a program is started with so that it is in the group from its first page on. */
  get wrapper(): readonly string[] {
    return ["sh", "-c", `echo $$ >${join(this.#path, "cgroup.procs")} && exec "$@"`, "sh"];
  }

  /** Its processes have ended. */
  async end(): Promise<void> {
    await until("the group is empty", () => {
      try {
        this.remove();
        return true;
      } catch {
        return false;
      }
    });
  }

  remove(): void {
    rmdirSync(this.#path);
  }

  // --- internal ---

  /** Else what is too much goes to the machine's swap, where there is any. */
  #forbidSwap(): void {
    const path = join(this.#path, "memory.swap.max");
    if (existsSync(path)) {
      writeFileSync(path, "0");
    }
  }
}
