/** One request line: `{"command":"NAME"}`; other members are ignored. `["NAME"]` is read as well. */
import { errorText, UbiError } from "../errors.ts";

/**
 * The command that a line asks for.
 * @throws UbiError E_RPC_REQUEST
 */
export function parseRequest(line: string): string {
  const value = parseJson(line);
  const command = Array.isArray(value) ? soleElement(value) : member(value);
  if (typeof command !== "string") {
    const what = command === undefined ? "missing field `command`" : "`command` is not a string";
    throw new UbiError("E_RPC_REQUEST", `invalid request: ${what}`);
  }
  return command;
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

function member(value: unknown): unknown {
  const isObject = typeof value === "object" && value !== null;
  return isObject && Object.hasOwn(value, "command") && "command" in value
    ? value.command
    : undefined;
}
