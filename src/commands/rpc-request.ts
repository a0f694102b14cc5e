/** `ubiblk rpc`: one command for a running backend or stripe server, over its RPC socket. */
import { connect } from "node:net";
import { defineCommand } from "citty";
import { ERROR_CODES, errorText, UbiError } from "../errors.ts";
import { quietLog } from "../log.ts";
import { integerArgument } from "./arguments.ts";
import { checkMembers, commandHint, RPC_COMMANDS } from "./rpc-commands.ts";
import { writePieces } from "./standard-output.ts";

const ANSWER_BYTES_MAX = 16 * 2 ** 20;

export default defineCommand({
  meta: {
    name: "rpc",
    description: "Gives a running backend or stripe server one command over its RPC socket",
  },
  args: {
    socket: {
      type: "positional",
      required: true,
      valueHint: "SOCKET",
      description: "its rpc_socket",
    },
    command: {
      type: "positional",
      required: true,
      valueHint: "COMMAND",
      suggested: Object.keys(RPC_COMMANDS),
      description: "such as status, resize, stop; ubiblk-rpc(7), docs/rpc.md, has all",
    },
    members: {
      type: "positional",
      required: false,
      isRepeated: true,
      valueHint: "KEY=VALUE",
      description: "what the command needs; a VALUE is JSON, or else text",
    },
    timeout: {
      type: "string",
      // `resize` takes longest: it waits for the disk, and for the front end's word.
      default: "120",
      valueHint: "SECONDS",
      description: "how long the answer may take",
      integer: { minimum: 1, maximum: 3600 },
    },
  },
  run: async ({ args }) => {
    quietLog();
    const request = requestOf(args.command, args._.slice(2));
    const line = await answerOf(args.socket, {
      request: `${JSON.stringify(request)}\n`,
      timeoutMs: integerArgument(args.timeout) * 1000,
    });
    throwRefusal(line, args.command);
    writePieces(1, [`${line}\n`]);
  },
});

// --- internal ---

function requestOf(command: string, words: readonly string[]): Readonly<Record<string, unknown>> {
  const members = words.map((word): readonly [string, unknown] => {
    const at = word.indexOf("=");
    if (at < 1) {
      throw new UbiError("E_USAGE", `${word}: no KEY=VALUE; see ubiblk rpc --help`);
    }
    return [word.slice(0, at), jsonOrText(word.slice(at + 1))];
  });
  checkMembers(
    command,
    members.map(([name]) => name),
  );
  return { ...Object.fromEntries(members), command };
}

function jsonOrText(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    if (!(error instanceof SyntaxError)) {
      throw error;
    }
    return text;
  }
}

/** The one line that comes back. @throws UbiError E_SOCKET */
function answerOf(
  path: string,
  { request, timeoutMs }: { readonly request: string; readonly timeoutMs: number },
): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const fail = (why: string) => reject(new UbiError("E_SOCKET", `no answer from ${path}: ${why}`));
  const socket = connect({ path });
  const timer = setTimeout(() => fail(`none within ${timeoutMs / 1000} s`), timeoutMs);
  const parts: string[] = [];
  let length = 0;
  socket.setEncoding("utf8");
  socket.on("connect", () => socket.write(request));
  socket.on("data", (data) => {
    const part = String(data);
    parts.push(part);
    length += part.length;
    if (part.includes("\n")) {
      resolve(parts.join("").split("\n", 1)[0] ?? "");
    } else if (length > ANSWER_BYTES_MAX) {
      fail("what comes is no line");
    }
  });
  socket.on("error", (error) =>
    fail(`${errorText(error)}; is it an rpc_socket, and does the program run?`),
  );
  socket.on("close", () => fail("the connection was closed"));
  return promise.finally(() => {
    clearTimeout(timer);
    socket.destroy();
  });
}

/** @throws UbiError as the process tells it */
function throwRefusal(line: string, command: string): void {
  const answer = jsonOrText(line);
  if (typeof answer !== "object" || answer === null) {
    throw new UbiError("E_SOCKET", "what answers is no RPC socket");
  }
  if ("error" in answer && typeof answer.error === "string") {
    const told = "code" in answer ? answer.code : undefined;
    const code = ERROR_CODES.find((each) => each === told) ?? "E_RPC_REQUEST";
    const hint = code === "E_RPC_COMMAND" ? commandHint(command) : "";
    throw new UbiError(code, `${answer.error}${hint}`);
  }
}
