/**
 * The commands of RPC sockets, as far as `ubiblk rpc` knows them: it helps who mistypes one. Whether there is a command
 * is said by who answers, which may be a later version.
 */
import { nearestName } from "../config/nearest-name.ts";
import { UbiError } from "../errors.ts";

/** Which members each takes; undefined where who answers refuses those that it does not know. */
export const RPC_COMMANDS: Readonly<Record<string, readonly string[] | undefined>> = {
  clients: [],
  device: [],
  histograms: [],
  limits: [],
  log_level: [],
  overdue: [],
  pause_fetch: [],
  process: [],
  queues: [],
  requests: [],
  resize: [],
  resume_fetch: [],
  retry_failed: [],
  set_fetch_rate: ["bytes_per_second"],
  set_limits: undefined,
  set_log_level: ["level"],
  statistics: [],
  stats: [],
  status: [],
  stop: [],
  upgrade: ["timeout_seconds"],
  version: [],
};

/** What to say behind the refusal of a command: the one that is nearest, or where all are. */
export function commandHint(command: string): string {
  const nearest = nearestName(command, Object.keys(RPC_COMMANDS));
  return nearest === undefined
    ? "; ubiblk-rpc(7), docs/rpc.md, has all"
    : `; did you mean ${nearest}?`;
}

/** Members that a command does not know would be passed over without a word. @throws UbiError E_USAGE */
export function checkMembers(command: string, names: readonly string[]): void {
  const known = Object.hasOwn(RPC_COMMANDS, command) ? RPC_COMMANDS[command] : undefined;
  const stray = names.find((name) => known?.includes(name) === false);
  if (known === undefined || stray === undefined) {
    return;
  }
  const takes = known.length === 0 ? "no KEY=VALUE" : `${known.join(", ")} only`;
  const setter = `set_${command}`;
  const hint = Object.hasOwn(RPC_COMMANDS, setter)
    ? `, and changes nothing; did you mean ${setter}?`
    : "";
  throw new UbiError("E_USAGE", `${stray}: ${command} takes ${takes}${hint}`);
}
