/**
 * Questions on a terminal, a line each, edited by the terminal itself: so they work in every language and with every
 * terminal. A line is read in another thread, so that Ctrl-C is heard meanwhile.
 */
import { read } from "node:fs";
import { isatty } from "node:tty";
import { errorText, UbiError } from "../errors.ts";
import { interruptible } from "./interruption.ts";
import { writePieces } from "./standard-output.ts";

export interface Questioner {
  readonly say: (text: string) => void;
  /** The answer without its newline and outer blanks. @throws UbiError E_INTERRUPTED by a signal, or at the input's end */
  readonly ask: (question: string) => Promise<string>;
}

/** Whether somebody is there to be asked. */
export function isOnTerminal(): boolean {
  return isatty(0) && isatty(1);
}

export const terminal: Questioner = {
  say: (text) => writePieces(1, [text]),
  ask: async (question) => {
    writePieces(1, [question]);
    return (await interruptible("the question", readLine)).trim();
  },
};

// --- internal ---

/** The terminal gives a line at a time, and no longer one. */
const LINE_BYTES_MAX = 4096;
const RETRY_MS = 10;

async function readLine(signal: AbortSignal): Promise<string> {
  const buffer = new Uint8Array(LINE_BYTES_MAX);
  for (;;) {
    try {
      const length = await readPiece(buffer, signal);
      if (length === 0) {
        throw nothingMade("the input ended");
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
      await Bun.sleep(RETRY_MS); // a terminal that somebody made non-blocking
    }
  }
}

/** Once the signal is there, the reading goes on until the process ends. */
function readPiece(buffer: Uint8Array, signal: AbortSignal): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  const onAbort = () => reject(nothingMade(errorText(signal.reason)));
  if (signal.aborted) {
    onAbort();
    return promise;
  }
  signal.addEventListener("abort", onAbort, { once: true });
  read(0, buffer, 0, buffer.length, null, (error, length) => {
    signal.removeEventListener("abort", onAbort);
    if (error === null) {
      resolve(length);
    } else {
      reject(error);
    }
  });
  return promise;
}

function nothingMade(why: string): UbiError {
  writePieces(1, ["\n"]); // behind the question
  return new UbiError("E_INTERRUPTED", `${why}; nothing was made`);
}
