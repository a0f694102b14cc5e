/** A file system in memory that is soon full, as root: what is written there meets ENOSPC. */
import { mkdirSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** A reason why there is none here, or undefined. */
export function missingSmallFileSystem(): string | undefined {
  return process.getuid?.() === 0 ? undefined : "mounting a file system needs root";
}

export class SmallFileSystem implements Disposable {
  readonly path: string;

  constructor(folder: string, sizeBytes: number) {
    this.path = join(folder, "small");
    mkdirSync(this.path);
    run("mount", "-t", "tmpfs", "-o", `size=${sizeBytes}`, "small", this.path);
  }

  /** A new sparse file. */
  file(name: string, bytes: number): string {
    const path = join(this.path, name);
    writeFileSync(path, "", { mode: 0o600 });
    truncateSync(path, bytes);
    return path;
  }

  /** Takes room away. */
  fill(bytes: number): void {
    writeFileSync(join(this.path, "filler"), new Uint8Array(bytes));
  }

  /** Gives it back. */
  free(): void {
    rmSync(join(this.path, "filler"));
  }

  /** A killed process may hold its files a moment longer: the mount goes with them. */
  [Symbol.dispose](): void {
    run("umount", "--lazy", this.path);
  }
}

// --- internal ---

function run(...command: readonly string[]): void {
  const { exitCode, stderr } = Bun.spawnSync([...command]);
  if (exitCode !== 0) {
    throw new Error(`${command.join(" ")}: ${stderr}`);
  }
}
