/**
 * Writes a journal and knows, for each block, what was sent, acknowledged and flushed. Records gather in
 * memory and go to the file in one write before the requests of that turn are published: so the file
 * survives the end of the backend, and of this process, at any moment.
 */
import { closeSync, existsSync, openSync, readFileSync, truncateSync, writeSync } from "node:fs";
import { assert, errorText, UbiError } from "../errors.ts";
import { u32 } from "../ffi/view.ts";
import {
  decodeJournalHeader,
  encodeJournalHeader,
  JOURNAL_HEADER_BYTES,
  type JournalHeader,
  RECORD,
  RECORD_BYTES,
  RECORD_WORDS,
  recordCheck,
} from "./journal-format.ts";

const JOURNAL_BYTES_MAX = 2 ** 31;

/** What is known of every block. Generations count from 1; 0 = never. */
export class BlockHistory {
  readonly header: JournalHeader;
  readonly sent: Uint32Array;
  readonly acknowledged: Uint32Array;
  /** Acknowledged before a flush was sent that was acknowledged later. */
  readonly flushed: Uint32Array;
  recordCount = 0;

  constructor(header: JournalHeader) {
    this.header = header;
    this.sent = new Uint32Array(header.blockCount);
    this.acknowledged = new Uint32Array(header.blockCount);
    this.flushed = new Uint32Array(header.blockCount);
  }
}

/** Reads a journal. @throws UbiError E_BENCH */
export function readJournal(path: string): BlockHistory {
  let bytes: Buffer;
  try {
    bytes = readFileSync(path);
  } catch (error) {
    throw new UbiError("E_BENCH", `cannot read journal ${path}: ${errorText(error)}`);
  }
  const history = new BlockHistory(decodeJournalHeader(bytes, path));
  const body = bytes.subarray(JOURNAL_HEADER_BYTES);
  const words = new Uint32Array(Math.floor(body.length / RECORD_BYTES) * RECORD_WORDS);
  new Uint8Array(words.buffer).set(body.subarray(0, words.byteLength));
  const count = validRecordCount(words, history.header.blockCount);
  history.recordCount = count;
  replay(history, words, count);
  return history;
}

export class JournalWriter implements Disposable {
  readonly history: BlockHistory;
  readonly #path: string;
  readonly #fd: number;
  readonly #words: Uint32Array;
  readonly #bytes: Uint8Array;
  #wordCount = 0;
  #fileBytes: number;
  #flushNumber: number;
  #isDisposed = false;

  /** Begins a journal, or goes on with one of the same shape. @throws UbiError E_BENCH */
  constructor(path: string, header: JournalHeader, recordsPerTurnMax: number) {
    this.#path = path;
    this.history = existsSync(path) ? this.#resume(header) : new BlockHistory(header);
    this.#words = new Uint32Array(recordsPerTurnMax * RECORD_WORDS);
    this.#bytes = new Uint8Array(this.#words.buffer);
    this.#fileBytes = JOURNAL_HEADER_BYTES + this.history.recordCount * RECORD_BYTES;
    this.#flushNumber = this.history.recordCount;
    this.#fd = this.#open(header);
  }

  /** A write to `block` is about to be sent: returns its generation. */
  sendWrite(block: number): number {
    const generation = u32(this.history.sent, block) + 1;
    this.history.sent[block] = generation;
    this.#append(RECORD.WRITE_SENT, block, generation);
    return generation;
  }

  acknowledgeWrite(block: number): void {
    const generation = u32(this.history.sent, block);
    this.history.acknowledged[block] = generation;
    this.#append(RECORD.WRITE_ACKNOWLEDGED, block, generation);
  }

  /** A flush is about to be sent: returns its number. */
  sendFlush(): number {
    this.#flushNumber += 1;
    this.#append(RECORD.FLUSH_SENT, this.#flushNumber, 0);
    return this.#flushNumber;
  }

  acknowledgeFlush(number: number): void {
    this.#append(RECORD.FLUSH_ACKNOWLEDGED, number, 0);
  }

  /** Puts what was gathered into the file. @throws UbiError E_BENCH */
  commit(): void {
    const lengthBytes = this.#wordCount * 4;
    for (let done = 0; done < lengthBytes; ) {
      done += this.#write(done, lengthBytes - done);
    }
    this.#fileBytes += lengthBytes;
    this.#wordCount = 0;
    if (this.#fileBytes > JOURNAL_BYTES_MAX) {
      throw new UbiError("E_BENCH", `journal ${this.#path} reached 2 GiB; use a shorter run`);
    }
  }

  [Symbol.dispose](): void {
    if (!this.#isDisposed) {
      this.#isDisposed = true;
      closeSync(this.#fd);
    }
  }

  // --- internal ---

  #resume(header: JournalHeader): BlockHistory {
    const history = readJournal(this.#path);
    const before = history.header;
    const isSame =
      before.seed === header.seed &&
      before.blockBytes === header.blockBytes &&
      before.offsetBytes === header.offsetBytes &&
      before.blockCount === header.blockCount;
    if (!isSame) {
      throw new UbiError(
        "E_BENCH",
        `journal ${this.#path} is of another run: seed ${before.seed}, ${before.blockCount} ` +
          `blocks of ${before.blockBytes} bytes at ${before.offsetBytes}`,
      );
    }
    truncateSync(this.#path, JOURNAL_HEADER_BYTES + history.recordCount * RECORD_BYTES);
    return history;
  }

  #open(header: JournalHeader): number {
    try {
      const fd = openSync(this.#path, "a");
      if (this.history.recordCount === 0) {
        truncateSync(this.#path, 0);
        writeSync(fd, encodeJournalHeader(header));
      }
      return fd;
    } catch (error) {
      throw new UbiError("E_BENCH", `cannot write journal ${this.#path}: ${errorText(error)}`);
    }
  }

  #append(kind: number, block: number, generation: number): void {
    const at = this.#wordCount;
    assert(at + RECORD_WORDS <= this.#words.length, "a turn's records fit the buffer");
    this.#words[at] = kind;
    this.#words[at + 1] = block;
    this.#words[at + 2] = generation;
    this.#words[at + 3] = recordCheck(kind, block, generation);
    this.#wordCount = at + RECORD_WORDS;
  }

  #write(offset: number, lengthBytes: number): number {
    try {
      return writeSync(this.#fd, this.#bytes, offset, lengthBytes);
    } catch (error) {
      throw new UbiError("E_BENCH", `cannot write journal ${this.#path}: ${errorText(error)}`);
    }
  }
}

// --- internal ---

function validRecordCount(words: Uint32Array, blockCount: number): number {
  const count = words.length / RECORD_WORDS;
  for (let i = 0; i < count; i++) {
    const at = i * RECORD_WORDS;
    const [kind, block] = [u32(words, at), u32(words, at + 1)];
    const isWrite = kind === RECORD.WRITE_SENT || kind === RECORD.WRITE_ACKNOWLEDGED;
    const isSound = recordCheck(kind, block, u32(words, at + 2)) === u32(words, at + 3);
    if (!isSound || (isWrite && block >= blockCount)) {
      return i;
    }
  }
  return count;
}

function replay(history: BlockHistory, words: Uint32Array, count: number): void {
  const flushEnd = lastFlushStart(words, count);
  for (let i = 0; i < count; i++) {
    const at = i * RECORD_WORDS;
    const kind = u32(words, at);
    const block = u32(words, at + 1);
    const generation = u32(words, at + 2);
    if (kind === RECORD.WRITE_SENT) {
      history.sent[block] = generation;
    } else if (kind === RECORD.WRITE_ACKNOWLEDGED) {
      history.acknowledged[block] = generation;
      if (i < flushEnd) {
        history.flushed[block] = generation;
      }
    }
  }
}

/** The index of the last "flush sent" that was acknowledged: what ended before it is durable. */
function lastFlushStart(words: Uint32Array, count: number): number {
  const acknowledged = new Set<number>();
  for (let i = count - 1; i >= 0; i--) {
    const kind = u32(words, i * RECORD_WORDS);
    const number = u32(words, i * RECORD_WORDS + 1);
    if (kind === RECORD.FLUSH_ACKNOWLEDGED) {
      acknowledged.add(number);
    } else if (kind === RECORD.FLUSH_SENT && acknowledged.has(number)) {
      return i;
    }
  }
  return 0;
}
