/** A worker of a group: runs its part, hears the order to stop, tells how it ended (worker-group.ts). */
import { errorText, UbiError } from "../errors.ts";
import type { GroupMessage } from "./worker-group.ts";

export interface GroupPart<Note> {
  readonly run: (tools: {
    /** Aborted when the work must end early. */
    readonly signal: AbortSignal;
    readonly note: (note: Note) => void;
  }) => Promise<void>;
}

/** Runs one part to its end, whatever it is. */
export async function runGroupPart<Note>(part: GroupPart<Note>): Promise<void> {
  const stop = new AbortController();
  const post = (message: GroupMessage<Note>) => postMessage(message);
  addEventListener("message", () => stop.abort(new UbiError("E_WORKER", "the work was stopped")));
  try {
    await part.run({ signal: stop.signal, note: (note) => post({ kind: "note", note }) });
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
