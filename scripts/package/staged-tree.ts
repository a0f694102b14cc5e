/** A tree of files that becomes a package: written with fixed modes and one date, whatever the umask and the clock say. */
import {
  chmodSync,
  lutimesSync,
  mkdirSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";

export class StagedTree {
  readonly folder: string;
  readonly #dateSeconds: number;

  /** Whatever was at `folder` is removed. */
  constructor(folder: string, dateSeconds: number) {
    this.folder = folder;
    this.#dateSeconds = dateSeconds;
    rmSync(folder, { recursive: true, force: true });
    mkdirSync(folder, { recursive: true });
  }

  add(path: string, content: string | Uint8Array, mode = 0o644): void {
    const place = this.#makePlace(path);
    writeFileSync(place, content);
    chmodSync(place, mode);
  }

  /** Compressed as the policy of Debian wants it: as small as it gets, without a date and a name. */
  addCompressed(path: string, content: string): void {
    this.add(`${path}.gz`, gzipped(content));
  }

  link(path: string, target: string): void {
    symlinkSync(target, this.#makePlace(path));
  }

  addFolder(path: string): void {
    mkdirSync(join(this.folder, path), { recursive: true });
  }

  /** To be called when all is there. */
  seal(): void {
    for (const path of readdirSync(this.folder, { recursive: true, encoding: "utf8" }).sort()) {
      this.#date(join(this.folder, path));
    }
    this.#date(this.folder);
  }

  /** Every file and link below the folder, sorted. */
  files(): readonly string[] {
    const entries = readdirSync(this.folder, { recursive: true, withFileTypes: true });
    return entries
      .filter((entry) => !entry.isDirectory())
      .map((entry) => join(entry.parentPath, entry.name).slice(this.folder.length + 1))
      .sort();
  }

  /** Folders get their mode here, since making them obeys the umask. */
  #makePlace(path: string): string {
    const place = join(this.folder, path);
    mkdirSync(dirname(place), { recursive: true });
    return place;
  }

  #date(place: string): void {
    lutimesSync(place, this.#dateSeconds, this.#dateSeconds);
  }
}

// --- internal ---

function gzipped(content: string): Uint8Array {
  const packed = Bun.gzipSync(new TextEncoder().encode(content), { level: 9 });
  packed[9] = 0xff; // the system that packed it does not matter
  return packed;
}
