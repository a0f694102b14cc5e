/**
 * The file of `--stats`: opened before the work, so that a name that cannot be written is no surprise behind hours of
 * it, and written when all is done. Until then what is there stays as it is.
 */
import {
  closeSync,
  constants,
  fstatSync,
  ftruncateSync,
  openSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { errorText, UbiError } from "../errors.ts";

export class StatisticsFile implements Disposable {
  readonly #path: string;
  readonly #fd: number;
  /** There was none before: it goes again when nothing is written. */
  readonly #isNew: boolean;
  #isWritten = false;

  private constructor(path: string, opened: { readonly fd: number; readonly isNew: boolean }) {
    this.#path = path;
    this.#fd = opened.fd;
    this.#isNew = opened.isNew;
  }

  /** @throws UbiError E_ARCHIVE_RUN */
  static open(path: string): StatisticsFile {
    try {
      return new StatisticsFile(path, openOrMake(path));
    } catch (cause) {
      const message = `cannot write statistics to ${path}: ${errorText(cause)}; nothing was done, mend --stats`;
      throw new UbiError("E_ARCHIVE_RUN", message, { cause });
    }
  }

  /** @throws UbiError E_ARCHIVE_RUN */
  write(content: object): void {
    try {
      if (fstatSync(this.#fd).isFile()) {
        ftruncateSync(this.#fd, 0);
      }
      writeFileSync(this.#fd, JSON.stringify(content, null, 2));
      this.#isWritten = true;
    } catch (cause) {
      const message = `the archive is complete, but cannot write its statistics to ${this.#path}: ${errorText(cause)}`;
      throw new UbiError("E_ARCHIVE_RUN", message, { cause });
    }
  }

  [Symbol.dispose](): void {
    closeSync(this.#fd);
    if (this.#isNew && !this.#isWritten) {
      unlinkSync(this.#path);
    }
  }
}

// --- internal ---

const { O_WRONLY, O_CREAT, O_EXCL } = constants;

function openOrMake(path: string): { readonly fd: number; readonly isNew: boolean } {
  try {
    return { fd: openSync(path, O_WRONLY), isNew: false };
  } catch (error) {
    if (!(error instanceof Error && "code" in error && error.code === "ENOENT")) {
      throw error;
    }
    return { fd: openSync(path, O_WRONLY | O_CREAT | O_EXCL, 0o666), isNew: true };
  }
}
