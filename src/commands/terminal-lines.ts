/**
 * Questions on a terminal, a line each, edited by the terminal itself: so they work in every language, with every
 * terminal, and Ctrl-C ends the program as it ends any other. Nothing may handle SIGINT meanwhile: this blocks.
 */
import { readSync } from "node:fs";
import { isatty } from "node:tty";
import { errorText, UbiError } from "../errors.ts";
import { writePieces } from "./standard-output.ts";

export interface Questioner {
  readonly say: (text: string) => void;
  /** The answer without its newline and outer blanks. @throws UbiError E_INTERRUPTED at the end of the input */
  readonly ask: (question: string) => string;
}

/** Whether somebody is there to be asked. */
export function isOnTerminal(): boolean {
  return isatty(0) && isatty(1);
}

export const terminal: Questioner = {
  say: (text) => writePieces(1, [text]),
  ask: (question) => {
    writePieces(1, [question]);
    return readLine().trim();
  },
};

// --- internal ---

/** The terminal gives a line at a time, and no longer one. */
const LINE_BYTES_MAX = 4096;
const RETRY_MS = 10;

function readLine(): string {
  const buffer = new Uint8Array(LINE_BYTES_MAX);
  for (;;) {
    try {
      const length = readSync(0, buffer, 0, buffer.length, null);
      if (length === 0) {
        writePieces(1, ["\n"]);
        throw new UbiError("E_INTERRUPTED", "the input ended; nothing was made");
      }
      return new TextDecoder().decode(buffer.subarray(0, length));
    } catch (error) {
      if (error instanceof UbiError) {
        throw error;
      }
      if (!(error instanceof Error && "code" in error && error.code === "EAGAIN")) {
        const message = `cannot read the answer: ${errorText(error)}`;
        throw new UbiError("E_INIT", message, { cause: error });
      }
      Bun.sleepSync(RETRY_MS); // a terminal that somebody made non-blocking
    }
  }
}
