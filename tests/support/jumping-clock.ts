/** A calendar clock that jumps while a process runs: jumping-clock.c says how. */

import { closeSync, openSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { outputOf } from "../../scripts/command.ts";
import { mapFile, unmap, viewOf } from "../../src/ffi/memory.ts";

const SOURCE = resolve(import.meta.dir, "jumping-clock.c");
const PAGE = 4096;

export class JumpingClock implements Disposable {
  /** What a process is started with that shall have this clock. */
  readonly env: Readonly<Record<string, string>>;
  readonly #address: number;
  readonly #seconds: Float64Array;

  private constructor(libraryPath: string, clockPath: string) {
    writeFileSync(clockPath, new Uint8Array(PAGE));
    const fd = openSync(clockPath, "r+");
    this.#address = mapFile({ fd, offsetBytes: 0, lengthBytes: PAGE, writable: true });
    closeSync(fd);
    this.#seconds = new Float64Array(viewOf(this.#address, 8));
    this.env = { LD_PRELOAD: libraryPath, CLOCK_FILE: clockPath };
  }

  static async make(folder: string): Promise<JumpingClock> {
    const path = join(folder, "jumping-clock.so");
    const flags = ["-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"];
    await outputOf(["gcc", ...flags, "-o", path, SOURCE, "-ldl"]);
    return new JumpingClock(path, join(folder, "clock"));
  }

  /** How far it is ahead of the real one. */
  set(seconds: number): void {
    this.#seconds[0] = seconds;
  }

  [Symbol.dispose](): void {
    unmap(this.#address, PAGE);
  }
}
