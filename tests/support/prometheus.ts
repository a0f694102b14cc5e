/** Prometheus, its promtool and node_exporter as scripts/setup.sh fetches them: programs, not services. */
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { type CommandResult, runCommand } from "../../scripts/command.ts";
import { freePort } from "./free-port.ts";
import { until } from "./until.ts";

const FOLDER = resolve(import.meta.dir, "..", "..", "build", "prometheus");

/** Undefined when the programs are there. */
export function missingPrometheus(): string | undefined {
  const programs = ["prometheus", "promtool", "prometheus-node-exporter"];
  const missing = programs.find((program) => !existsSync(join(FOLDER, program)));
  return missing === undefined ? undefined : `${missing} could not be fetched`;
}

/** What promtool says to arguments. @param input for its standard input */
export function promtool(args: readonly string[], input = ""): Promise<CommandResult> {
  const program = join(FOLDER, "promtool");
  return runCommand(["bash", "-c", 'printf %s "$INPUT" | "$@"', "bash", program, ...args], {
    env: { ...process.env, INPUT: input },
  });
}

/** A program with an HTTP port of its own, from when it answers until it is disposed. */
export class HttpProgram implements AsyncDisposable {
  readonly url: string;
  readonly #child: Bun.Subprocess;
  readonly #logPath: string;

  private constructor(url: string, child: Bun.Subprocess, logPath: string) {
    this.url = url;
    this.#child = child;
    this.#logPath = logPath;
  }

  /** Scrapes every second. @param targets `HOST:PORT` @param folder that it may fill */
  static async prometheus(folder: string, targets: readonly string[]): Promise<HttpProgram> {
    mkdirSync(folder, { recursive: true });
    const list = targets.map((target) => `"${target}"`).join(", ");
    const job = `  - job_name: ubiblk\n    static_configs:\n      - targets: [${list}]\n`;
    const times = "global:\n  scrape_interval: 1s\n  scrape_timeout: 1s\n";
    writeFileSync(join(folder, "prometheus.yml"), `${times}scrape_configs:\n${job}`);
    return await HttpProgram.#start(
      folder,
      { name: "prometheus", ready: "/-/ready" },
      (address) => [
        `--config.file=${join(folder, "prometheus.yml")}`,
        `--storage.tsdb.path=${join(folder, "data")}`,
        `--web.listen-address=${address}`,
      ],
    );
  }

  /** Reads `*.prom` in a folder, and nothing else. */
  static async nodeExporter(folder: string): Promise<HttpProgram> {
    const program = { name: "prometheus-node-exporter", ready: "/metrics" };
    return await HttpProgram.#start(folder, program, (address) => [
      "--collector.disable-defaults",
      "--collector.textfile",
      `--collector.textfile.directory=${folder}`,
      `--web.listen-address=${address}`,
    ]);
  }

  /** The value of each sample that an expression has in Prometheus now. @throws Error for a wrong expression */
  async query(expression: string): Promise<readonly QuerySample[]> {
    const response = await fetch(
      `${this.url}/api/v1/query?query=${encodeURIComponent(expression)}`,
    );
    const answer: QueryAnswer = JSON.parse(await response.text());
    if (answer.status !== "success") {
      throw new Error(`${expression}: ${answer.error}`);
    }
    return answer.data?.result ?? [];
  }

  log(): string {
    return readFileSync(this.#logPath, "utf8");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#child.exited;
  }

  // --- internal ---

  static async #start(
    folder: string,
    { name, ready }: { readonly name: string; readonly ready: string },
    flags: (address: string) => readonly string[],
  ): Promise<HttpProgram> {
    const address = `127.0.0.1:${freePort()}`;
    const logPath = join(folder, `${name}.log`);
    const logFd = openSync(logPath, "w");
    const child = Bun.spawn([join(FOLDER, name), ...flags(address)], {
      stdin: "ignore",
      stdout: logFd,
      stderr: logFd,
    });
    closeSync(logFd);
    const program = new HttpProgram(`http://${address}`, child, logPath);
    await until(`${name} answers`, () => program.#answers(ready));
    return program;
  }

  async #answers(path: string): Promise<boolean> {
    if (this.#child.exitCode !== null) {
      throw new Error(`it ended: ${this.log()}`);
    }
    try {
      return (await fetch(this.url + path)).ok;
    } catch {
      return false; // not yet
    }
  }
}

export interface QuerySample {
  readonly metric: Readonly<Record<string, string>>;
  readonly value: readonly [number, string];
}

// --- internal ---

interface QueryAnswer {
  readonly status: string;
  readonly error?: string;
  readonly data?: { readonly result: readonly QuerySample[] };
}
