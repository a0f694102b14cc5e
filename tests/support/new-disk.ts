/** Disks that `ubiblk init` makes, for tests of it: a folder for what they are made of, and the disk in one of its own. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type CommandResult, runCommand } from "../../scripts/command.ts";
import { type Backend, EXECUTABLE, startBackend } from "./backend.ts";

export class NewDisk implements Disposable {
  readonly folder = mkdtempSync(join(tmpdir(), "ubiblk-init-"));
  /** Of the disk: not there yet. */
  readonly place = join(this.folder, "vm");

  /** `ubiblk init --dir PLACE` with these flags. */
  init(...flags: readonly string[]): Promise<CommandResult> {
    return this.run("init", "--dir", this.place, ...flags);
  }

  run(...words: readonly string[]): Promise<CommandResult> {
    const env = { ...process.env, UBIBLK_LOG: "error" };
    return runCommand([EXECUTABLE, ...words], { cwd: this.folder, timeoutMs: 30_000, env });
  }

  /** Serves the disk by the configuration that was made. @param env further variables */
  serve(
    env: Readonly<Record<string, string>> = {},
    configPath = join(this.place, "config.toml"),
  ): Promise<Backend> {
    return startBackend({
      command: [EXECUTABLE, "vhost", "--config", configPath],
      socketPath: join(this.place, "vhost.sock"),
      logPath: join(this.folder, "log"),
      env: { ...process.env, UBIBLK_LOG: undefined, ...env },
    });
  }

  write(name: string, content: string | Uint8Array): string {
    const path = join(this.folder, name);
    writeFileSync(path, content, { mode: 0o600 });
    return path;
  }

  /** Everything in the disk's folder, hidden files as well. */
  names(): readonly string[] {
    return readdirSync(this.place).sort();
  }

  textOf(name: string): string {
    return readFileSync(join(this.place, name), "utf8");
  }

  modeOf(name: string): number {
    return statSync(join(this.place, name)).mode & 0o7777;
  }

  [Symbol.dispose](): void {
    rmSync(this.folder, { recursive: true, force: true });
  }
}
