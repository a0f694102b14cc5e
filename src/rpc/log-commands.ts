/** Commands of every RPC socket that tell and change how much the log tells. */
import { UbiError } from "../errors.ts";
import { isLogLevel, LOG_LEVELS, LogLimiter, logLevel, setLogLevel } from "../log.ts";
import type { Request } from "./request.ts";

/** Undefined for a command that is not one of them. @throws UbiError E_RPC_REQUEST */
export function logAnswer({ command, members }: Request): { log_level: string } | undefined {
  switch (command) {
    case "log_level":
      return { log_level: logLevel() };
    case "set_log_level":
      changeLevel(members.level);
      return { log_level: logLevel() };
    default:
      return undefined;
  }
}

// --- internal ---

const limiter = new LogLimiter();

function changeLevel(level: unknown): void {
  if (!isLogLevel(level)) {
    const message = `invalid request: \`level\` must be one of ${LOG_LEVELS.join(", ")}`;
    throw new UbiError("E_RPC_REQUEST", message);
  }
  const before = logLevel();
  setLogLevel(level);
  if (before !== level) {
    limiter.info("the log level was changed", { from: before, to: level });
  }
}
