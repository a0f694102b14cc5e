/** A place to run the commands of documents as a reader would. */
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { type CommandResult, runCommand } from "../../scripts/command.ts";
import { EXECUTABLE } from "./backend.ts";
import { freePort } from "./free-port.ts";

/** Of a test that runs one script. */
export const HOME_TIMEOUT_MS = 120_000;

interface HomeOptions {
  /** Further variables. */
  readonly environment?: Readonly<Record<string, string>>;
  readonly command?: readonly string[];
  readonly timeoutMs?: number;
}

/** An empty home with an empty folder `clone` in it, where commands begin. */
export class Home implements Disposable {
  readonly path = mkdtempSync(join(tmpdir(), "ubiblk-docs-"));

  constructor() {
    mkdirSync(join(this.path, "clone"));
  }

  /**
   * Runs `script` in one shell that ends at the first failure. Another port is taken for the one that it names.
   * @param options.command what starts the shell, as another user for example
   */
  async run(script: string, options: HomeOptions = {}): Promise<CommandResult> {
    const { environment, command = [], timeoutMs = HOME_TIMEOUT_MS - 5_000 } = options;
    const commands = script.replaceAll("7777", String(freePort()));
    const whole = `trap 'kill $(jobs -p) || true' EXIT\n${commands}`;
    const env = {
      ...process.env,
      HOME: this.path,
      PATH: `${dirname(EXECUTABLE)}:${process.env.PATH}`,
      UBIBLK_LOG: undefined,
      ...environment,
    };
    const cwd = join(this.path, "clone");
    const shell = [...command, "bash", "-euo", "pipefail", "-c", whole];
    return await runCommand(shell, { cwd, timeoutMs, env });
  }

  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true });
  }
}
