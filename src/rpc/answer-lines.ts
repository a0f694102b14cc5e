/** From a line that a client sent to the line that it gets, whatever is served. */
import { type ErrorCode, UbiError } from "../errors.ts";
import { logAnswer } from "./log-commands.ts";
import { parseRequest, type Request } from "./request.ts";

/** A value of JSON whose object keys stand in alphabetical order. */
export type RpcAnswer = Readonly<Record<string, unknown>>;

/**
 * What a request is answered with, at once or when it was carried out; undefined for a command that is not known. A
 * UbiError that it throws, or rejects with, is told.
 */
export type AnswerRequest = (request: Request) => RpcAnswer | undefined | Promise<RpcAnswer>;

/** One line of JSON, with its newline, for one request line. Never fails for what a client sent. */
export function answerLine(answer: AnswerRequest, line: string): string | Promise<string> {
  try {
    const request = parseRequest(line);
    const value = logAnswer(request) ?? answer(request);
    if (value === undefined) {
      throw new UbiError("E_RPC_COMMAND", `unknown command: ${request.command}`);
    }
    return value instanceof Promise ? value.then(encode, failureLine) : encode(value);
  } catch (error) {
    return failureLine(error);
  }
}

/** The answer to a request that failed. */
export function errorLine(code: ErrorCode, message: string): string {
  return encode({ code, error: message });
}

// --- internal ---

/** @throws what is no UbiError: a programmer error */
function failureLine(error: unknown): string {
  if (!(error instanceof UbiError)) {
    throw error;
  }
  return errorLine(error.code, error.message);
}

function encode(value: RpcAnswer): string {
  return `${JSON.stringify(value)}\n`;
}
