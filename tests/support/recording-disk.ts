/**
 * A disk that keeps what a crash could leave of it: the state that is certain (flushed), and the writes that are
 * not. A sector is a few words. Work is done when the test says so, in the order it says.
 */
import { expect } from "bun:test";

/** A write that no flush has made certain. */
export interface OpenWrite {
  readonly sector: number;
  readonly words: Int32Array;
  /** A failed flush may have lost it for good, though it can still be read. */
  readonly isLosable: boolean;
  isComplete: boolean;
}

interface Work {
  readonly kind: "read" | "write" | "flush";
  readonly sector: number;
  readonly sectorCount: number;
  readonly write?: OpenWrite;
  readonly covered?: readonly OpenWrite[];
  readonly done: (isOk: boolean) => void;
}

export class RecordingDisk {
  readonly wordsPerSector: number;
  /** Survives every crash. */
  readonly certain: Int32Array;
  /** What reads see. */
  readonly current: Int32Array;
  open: OpenWrite[] = [];
  underWay: Work[] = [];
  flushes = 0;
  readonly #onEvent: () => void;

  constructor(content: Int32Array, wordsPerSector: number, onEvent: () => void) {
    this.wordsPerSector = wordsPerSector;
    this.certain = content.slice();
    this.current = content.slice();
    this.#onEvent = onEvent;
  }

  read(sector: number, sectorCount: number, done: (isOk: boolean) => void): void {
    this.underWay.push({ kind: "read", sector, sectorCount, done });
  }

  /** From here on a crash may leave any of its sectors. */
  write(
    sector: number,
    words: Int32Array,
    isLosable: boolean,
    done: (isOk: boolean) => void,
  ): void {
    const sectorCount = words.length / this.wordsPerSector;
    const clash = this.underWay.find(
      (work) =>
        work.kind === "write" &&
        work.sector < sector + sectorCount &&
        sector < work.sector + work.sectorCount,
    );
    expect(clash, "two writes to one sector at the same time").toBeUndefined();
    const write: OpenWrite = { sector, words: words.slice(), isLosable, isComplete: false };
    this.open.push(write);
    this.underWay.push({ kind: "write", sector, sectorCount, write, done });
    this.#onEvent();
  }

  flush(done: (isOk: boolean) => void): void {
    const covered = this.open.filter((write) => write.isComplete);
    this.underWay.push({ kind: "flush", sector: 0, sectorCount: 0, covered, done });
  }

  /** Ends the work at `index`. Of a failed write and a failed flush `isLost` says what became of the data. */
  finish(index: number, isOk: boolean, isLost: () => boolean): void {
    const [work] = this.underWay.splice(index, 1);
    if (work === undefined) {
      throw new Error("only work under way is finished");
    }
    if (work.write !== undefined) {
      this.#finishWrite(work.write, isOk || !isLost());
    }
    if (work.covered !== undefined) {
      this.#finishFlush(work.covered, isOk, isLost);
    }
    work.done(isOk);
    this.#onEvent();
  }

  // --- internal ---

  #finishWrite(write: OpenWrite, isApplied: boolean): void {
    if (isApplied) {
      write.isComplete = true;
      this.current.set(write.words, write.sector * this.wordsPerSector);
    } else {
      this.open = this.open.filter((other) => other !== write);
    }
  }

  #finishFlush(covered: readonly OpenWrite[], isOk: boolean, isLost: () => boolean): void {
    this.flushes += 1;
    const gone = covered.filter((write) => isOk || (write.isLosable && isLost()));
    if (isOk) {
      for (const write of gone) {
        if (this.open.includes(write)) {
          this.certain.set(write.words, write.sector * this.wordsPerSector);
        }
      }
    }
    this.open = this.open.filter((write) => !gone.includes(write));
  }
}
