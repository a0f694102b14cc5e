/**
 * The sockets: that they can be made, and who listens there. A `vhost_socket` is not connected to while a backend has
 * the disk: it serves one front end at a time, and what waits behind that would pile up.
 */
import { accessSync, constants, lstatSync, readlinkSync, type Stats, statSync } from "node:fs";
import { dirname, resolve } from "node:path";
import type { DeviceConfig } from "../config/index.ts";
import { InputFile } from "../copy/input-file.ts";
import { lockHolderPid } from "../disk/disk-lock.ts";
import { errnoText, errorText, UbiError } from "../errors.ts";
import { probeSocket } from "../ffi/socket.ts";
import type { CheckContext } from "./check-context.ts";
import type { Finding } from "./finding.ts";
import { askVersion } from "./rpc-question.ts";
import { systemText } from "./system-file.ts";

export async function* examineVhostSocket(context: CheckContext): AsyncGenerator<Finding> {
  const config = await context.config();
  const { vhostSocket } = config.device;
  yield* placeFindings(vhostSocket, (path) => vhostListener(path, holderOf(config)));
}

export async function* examineRpcSocket(context: CheckContext): AsyncGenerator<Finding> {
  const { rpcSocket } = (await context.config()).device;
  const listener = yield* placeFindings(rpcSocket, connectionState);
  if (rpcSocket !== undefined && listener === "listening") {
    yield await answerFinding(rpcSocket);
  }
}

export async function* examineMetricsSocket(context: CheckContext): AsyncGenerator<Finding> {
  const { metricsSocket } = (await context.config()).device;
  yield* placeFindings(metricsSocket, connectionState);
}

/** What is at a socket's path. */
type PathState = "absent" | "socket" | "other" | { readonly error: string };
/** `unknown`, with why. */
type Listener = "listening" | "nobody" | { readonly error: string };

export function lengthFinding(path: string): Finding | undefined {
  const bytes = new TextEncoder().encode(path).length;
  return bytes <= PATH_BYTES_MAX
    ? undefined
    : {
        check: "path",
        verdict: "fail",
        found: `${path} has ${bytes} bytes, a socket's path at most ${PATH_BYTES_MAX}`,
        advice: "name a shorter one, such as in /run/ubiblk",
      };
}

export function stateFinding(path: string, state: PathState, listener: Listener): Finding {
  const check = "socket";
  if (typeof state !== "string") {
    return { check, verdict: "fail", found: state.error, advice: "give this user access to it" };
  }
  switch (state) {
    case "absent":
      return { check, verdict: "ok", found: `${path} is free: nobody serves here now` };
    case "other":
      return {
        check,
        verdict: "fail",
        found: `${path} exists and is not a socket`,
        advice: "remove it, or name another path",
      };
    case "socket":
      break;
  }
  if (typeof listener !== "string") {
    const found = `it cannot be told who listens at ${path}: ${listener.error}`;
    return { check, verdict: "warn", found, advice: "give this user access to it" };
  }
  return listener === "listening"
    ? { check, verdict: "ok", found: `a program listens at ${path}` }
    : {
        check,
        verdict: "warn",
        found: `${path} is left from a process that died: nobody listens`,
        advice: "start the backend, which replaces it",
      };
}

/** Who may write to the folder can put another program's socket in the place of ours. */
export function modeFinding(folder: string, mode: number): Finding {
  const check = "folder";
  const shown = (mode & 0o7777).toString(8).padStart(4, "0");
  return (mode & 0o002) === 0
    ? { check, verdict: "ok", found: `${folder}, mode ${shown}` }
    : {
        check,
        verdict: "warn",
        found: `${folder}, mode ${shown}: every user can put a socket there`,
        advice: "use a folder of its own (a unit: RuntimeDirectory=)",
      };
}

// --- internal ---

/** sun_path less its NUL (unix(7)). */
const PATH_BYTES_MAX = 107;
const ECONNREFUSED = -111;
/** Of /proc/net/unix: number, references, protocol, flags, type, state, inode, name. */
const LISTENING_FLAGS = "00010000";
const NAME_FIELD = 7;

/** Returns who listens there; nothing is found about a socket that is not configured. */
function* placeFindings(
  path: string | undefined,
  listenerAt: (path: string) => Listener,
): Generator<Finding, Listener> {
  if (path === undefined) {
    return "nobody";
  }
  const pathFinding = lengthFinding(path);
  if (pathFinding !== undefined) {
    yield pathFinding;
    return "nobody";
  }
  yield folderFinding(path);
  const state = stateOf(path);
  const listener = state === "socket" ? listenerAt(path) : "nobody";
  yield stateFinding(path, state, listener);
  return listener;
}

function folderFinding(path: string): Finding {
  const check = "folder";
  const folder = dirname(path);
  let stats: Stats;
  try {
    stats = statSync(folder);
    accessSync(folder, constants.W_OK | constants.X_OK);
  } catch (error) {
    const advice = `make it, writable for the backend's user: install -d -m 0750 ${folder}`;
    return {
      check,
      verdict: "fail",
      found: `cannot make a socket in ${folder}: ${errorText(error)}`,
      advice,
    };
  }
  return stats.isDirectory()
    ? modeFinding(folder, stats.mode)
    : { check, verdict: "fail", found: `${folder} is no folder`, advice: "name another path" };
}

function stateOf(path: string): PathState {
  try {
    const stats = lstatSync(path, { throwIfNoEntry: false });
    return stats === undefined ? "absent" : stats.isSocket() ? "socket" : "other";
  } catch (error) {
    return { error: `cannot look at ${path}: ${errorText(error)}` };
  }
}

/** The process that serves the disk. */
function holderOf({ device }: DeviceConfig): number | undefined {
  try {
    using file = new InputFile(device.dataPath);
    return lockHolderPid(file.fd);
  } catch (error) {
    if (!(error instanceof UbiError)) {
      throw error;
    }
    return undefined; // told by the subject "data_path"
  }
}

/** Without a backend a connection disturbs nobody; with one its list of sockets tells. */
function vhostListener(path: string, pid: number | undefined): Listener {
  if (pid === undefined) {
    return connectionState(path);
  }
  return isBound(path, pid)
    ? "listening"
    : { error: `process ${pid} has the disk, and it is not seen among its sockets` };
}

/** Whether a process listens at a path, as written or from its own folder, in a network of its own perhaps. */
function isBound(path: string, pid: number): boolean {
  const folder = folderOf(pid);
  return (systemText(`/proc/${pid}/net/unix`) ?? "")
    .split("\n")
    .map((line) => line.trim().split(/\s+/))
    .filter((fields) => fields[3] === LISTENING_FLAGS && fields.length > NAME_FIELD)
    .map((fields) => fields.slice(NAME_FIELD).join(" "))
    .some((name) => name === path || resolve(folder, name) === resolve(path));
}

function folderOf(pid: number): string {
  try {
    return readlinkSync(`/proc/${pid}/cwd`);
  } catch {
    return "/"; // another user's
  }
}

function connectionState(path: string): Listener {
  const result = probeSocket(path);
  if (result === 0) {
    return "listening";
  }
  return result === ECONNREFUSED ? "nobody" : { error: errnoText(result) };
}

async function answerFinding(path: string): Promise<Finding> {
  const check = "answer";
  const answer = await askVersion(path);
  return "version" in answer
    ? { check, verdict: "ok", found: `version ${answer.version} answers` }
    : {
        check,
        verdict: "fail",
        found: answer.problem,
        advice: "look at the backend: it hangs, or something else listens there",
      };
}
