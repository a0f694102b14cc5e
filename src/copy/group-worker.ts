/** A worker of a group: runs its part, hears the order to stop, tells how it ended (worker-group.ts). */
import { errorText, UbiError } from "../errors.ts";
import type { GroupMessage } from "./worker-group.ts";

export interface GroupPart<Note> {
  readonly run: (tools: PartTools<Note>) => Promise<void>;
}

export interface PartTools<Note> {
  /** Aborted when the work must end early. */
  readonly signal: AbortSignal;
  /** Ends early what else this thread has under way: something failed, and waiting for the rest is of no use. */
  readonly cancel: () => void;
  readonly note: (note: Note) => void;
}

/** Runs one part to its end, whatever it is. */
export async function runGroupPart<Note>(part: GroupPart<Note>): Promise<void> {
  const stop = new AbortController();
  const post = (message: GroupMessage<Note>) => postMessage(message);
  const cancel = () => stop.abort(new UbiError("E_WORKER", "the work was stopped"));
  addEventListener("message", cancel);
  post({ kind: "listening" });
  try {
    const note = (each: Note) => post({ kind: "note", note: each });
    await part.run({ signal: stop.signal, cancel, note });
    post({ kind: "ended" });
  } catch (error) {
    if (!(error instanceof UbiError)) {
      throw error; // a programmer error ends the thread, and the process with it
    }
    post({ kind: "failed", code: error.code, message: errorText(error) });
  }
}

/** Lets messages in; the work itself is one long turn of the loop. */
export function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
