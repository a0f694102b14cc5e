/** Asks an RPC socket for its version: a client of its own, which trusts nothing that comes back. */
import { connect } from "node:net";
import { errorText } from "../errors.ts";

export type RpcAnswer = { readonly version: string } | { readonly problem: string };

export function askVersion(path: string): Promise<RpcAnswer> {
  return new Promise((done) => {
    const socket = connect({ path });
    let text = "";
    const end = (answer: RpcAnswer) => {
      clearTimeout(timer);
      socket.destroy();
      done(answer);
    };
    const timer = setTimeout(() => {
      end({ problem: `it takes connections, but gave no answer within ${ANSWER_MS / 1000} s` });
    }, ANSWER_MS);
    socket.setEncoding("utf8");
    socket.on("data", (part) => {
      text += String(part);
      if (text.includes("\n") || text.length > LINE_LENGTH_MAX) {
        end(answerOf(text));
      }
    });
    socket.on("error", (error) => end({ problem: errorText(error) }));
    socket.on("close", () => end({ problem: "it closed the connection without an answer" }));
    socket.write('{"command":"version"}\n');
  });
}

/** @param text of which the first line counts */
export function answerOf(text: string): RpcAnswer {
  try {
    const value: unknown = JSON.parse(text.split("\n")[0] ?? "");
    const version =
      typeof value === "object" && value !== null && "version" in value && value.version;
    return typeof version === "string"
      ? { version: version.slice(0, VERSION_LENGTH_MAX) }
      : { problem: "its answer names no version: another program listens there" };
  } catch {
    return { problem: "its answer is no JSON: another program listens there" };
  }
}

// --- internal ---

const ANSWER_MS = 2_000;
const LINE_LENGTH_MAX = 64 * 1024;
const VERSION_LENGTH_MAX = 40;
