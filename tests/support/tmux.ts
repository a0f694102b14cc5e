/** A real terminal for tests: a shell in a tmux server of its own, with keys going in and the screen coming out. */
import { join } from "node:path";
import { outputOf } from "../../scripts/command.ts";

const TIMEOUT_MS = 15_000;

/** A server that ends still holds its socket for a moment: each has another. */
let started = 0;

export interface TmuxOptions {
  /** For the server's socket. */
  readonly folder: string;
  readonly columns: number;
  readonly rows: number;
}

export class TmuxTerminal implements AsyncDisposable {
  readonly #command: readonly string[];

  /** Starts a shell whose prompt is `$ `. */
  static async start({ folder, columns, rows }: TmuxOptions): Promise<TmuxTerminal> {
    const terminal = new TmuxTerminal(join(folder, `tmux-${++started}.sock`));
    const size = ["-x", `${columns}`, "-y", `${rows}`];
    await terminal.#run("new-session", "-d", ...size, "env PS1='$ ' NO_COLOR= sh");
    await terminal.until(/^\$ ?$/m);
    return terminal;
  }

  private constructor(socketPath: string) {
    this.#command = ["tmux", "-S", socketPath, "-f", "/dev/null"];
  }

  /** Types a line. */
  async type(line: string): Promise<void> {
    await this.#run("send-keys", "-l", line);
    await this.press("Enter");
  }

  /** Presses keys by tmux's names: `q`, `Down`, `C-c`. */
  async press(...keys: readonly string[]): Promise<void> {
    await this.#run("send-keys", ...keys);
  }

  async resize(columns: number, rows: number): Promise<void> {
    await this.#run("resize-window", "-x", `${columns}`, "-y", `${rows}`);
  }

  /** What the screen shows; with escape sequences for colours where `hasColours`. */
  screen({ hasColours = false } = {}): Promise<string> {
    return this.#run("capture-pane", "-p", ...(hasColours ? ["-e"] : []));
  }

  /** A fact of the pane, such as `#{cursor_flag}` or `#{alternate_on}`. */
  async fact(format: string): Promise<string> {
    return (await this.#run("display-message", "-p", format)).trim();
  }

  /** Waits until the screen matches, and returns it. @throws Error with the screen after 15 s */
  async until(pattern: RegExp): Promise<string> {
    const endMs = performance.now() + TIMEOUT_MS;
    for (;;) {
      const screen = await this.screen();
      if (pattern.test(screen)) {
        return screen;
      }
      if (performance.now() > endMs) {
        throw new Error(`the screen never matched ${pattern}:\n${screen}`);
      }
      await Bun.sleep(50);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#run("kill-server");
  }

  // --- internal ---

  #run(...words: readonly string[]): Promise<string> {
    return outputOf([...this.#command, ...words], { timeoutMs: TIMEOUT_MS });
  }
}
