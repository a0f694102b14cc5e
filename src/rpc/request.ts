/** One request line: `{"command":"NAME"}`, with what the command needs. `["NAME"]` is read as well. */
import { errorText, UbiError } from "../errors.ts";

export interface Request {
  readonly command: string;
  /** The members beside `command`, of which most commands have none. */
  readonly members: Readonly<Record<string, unknown>>;
}

/**
 * What a line asks for.
 * @throws UbiError E_RPC_REQUEST
 */
export function parseRequest(line: string): Request {
  const value = parseJson(line);
  const members = Array.isArray(value) ? { command: soleElement(value) } : membersOf(value);
  const { command } = members;
  if (typeof command !== "string") {
    const what = command === undefined ? "missing field `command`" : "`command` is not a string";
    throw new UbiError("E_RPC_REQUEST", `invalid request: ${what}`);
  }
  return { command, members };
}

// --- internal ---

function parseJson(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch (error) {
    const text = errorText(error).replaceAll(/\s+/g, " ");
    throw new UbiError("E_RPC_REQUEST", `invalid request: ${text}`, { cause: error });
  }
}

function soleElement(list: readonly unknown[]): unknown {
  if (list.length > 1) {
    throw new UbiError("E_RPC_REQUEST", "invalid request: an array has the command only");
  }
  return list[0];
}

/** Without a prototype: a name that was not sent is not there. */
function membersOf(value: unknown): Readonly<Record<string, unknown>> {
  const isObject = typeof value === "object" && value !== null;
  return Object.assign(Object.create(null), isObject ? value : {});
}
