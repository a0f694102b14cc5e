/**
 * The sockets: that they can be made, and who listens there. A `vhost_socket` is not connected to while a backend has
 * the disk: it serves one front end at a time, and what waits behind that would pile up.
 */

import { accessSync, constants, lstatSync, readlinkSync, type Stats, statSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { type DeviceConfig, socketRights } from "../config/index.ts";
import { InputFile } from "../copy/input-file.ts";
import { lockHolderPid } from "../disk/disk-lock.ts";
import { errnoText, errorText, UbiError } from "../errors.ts";
import { listenAt } from "../ffi/listen-address.ts";
import { closeDescriptor, probeSocket } from "../ffi/socket.ts";
import type { CheckContext } from "./check-context.ts";
import type { Finding } from "./finding.ts";
import { operatingErrorText } from "./operating-error.ts";
import { askVersion } from "./rpc-question.ts";
import { systemText } from "./system-file.ts";

export async function* examineVhostSocket(context: CheckContext): AsyncGenerator<Finding> {
  const config = await context.config();
  const { vhostSocket, vhostSocketMode: mode, vhostSocketOwner: owner } = config.device;
  const { vhostSocketGroup: group } = config.device;
  if (vhostSocket !== undefined) {
    yield* rightsFindings("device.vhost_socket", vhostSocket, { mode, owner, group });
  }
  yield* placeFindings(vhostSocket, (path) => vhostListener(path, holderOf(config)));
}

export async function* examineRpcSocket(context: CheckContext): AsyncGenerator<Finding> {
  const { device } = await context.config();
  const { rpcSocket, rpcSocketMode: mode, rpcSocketOwner: owner, rpcSocketGroup: group } = device;
  yield* rightsFindings("device.rpc_socket", rpcSocket, { mode, owner, group });
  const listener = yield* placeFindings(rpcSocket, connectionState);
  if (rpcSocket !== undefined && listener === "listening") {
    yield await answerFinding(rpcSocket);
  }
}

export async function* examineMetricsSocket(context: CheckContext): AsyncGenerator<Finding> {
  const { device } = await context.config();
  const { metricsSocket, metricsSocketMode: mode, metricsSocketOwner: owner } = device;
  const { metricsSocketGroup: group } = device;
  yield* rightsFindings("device.metrics_socket", metricsSocket, { mode, owner, group });
  yield* placeFindings(metricsSocket, connectionState);
}

/** It is listened at for a moment, unless somebody does. */
export async function* examineMetricsAddress(context: CheckContext): AsyncGenerator<Finding> {
  const config = await context.config();
  const { metricsAddress } = config.device;
  if (metricsAddress !== undefined) {
    yield addressFinding(metricsAddress, holderOf(config));
  }
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

/**
 * Who may connect. Its user and group have to be known to this machine, also where there is no `path`: a backend looks
 * them up first.
 */
export function* rightsFindings(
  key: string,
  path: string | undefined,
  settings: Parameters<typeof socketRights>[1],
): Generator<Finding> {
  const check = "rights";
  try {
    const { mode, owner, group } = socketRights(key, settings);
    if (path !== undefined) {
      const shown = mode.toString(8).padStart(4, "0");
      const found = `mode ${shown}, owner ${owner ?? OF_BACKEND}, group ${group ?? OF_BACKEND}`;
      yield { check, verdict: "ok", found };
    }
  } catch (error) {
    yield { check, verdict: "fail", found: operatingErrorText(error) };
  }
}

/** @param pid the process that serves the disk: then it is at its place there */
export function addressFinding(address: string, pid: number | undefined): Finding {
  const check = "address";
  try {
    closeDescriptor(listenAt(address));
    return { check, verdict: "ok", found: `${address} is free: nobody serves here now` };
  } catch (error) {
    const found = operatingErrorText(error);
    const isTaken = error instanceof UbiError && error.code === "E_SOCKET_IN_USE";
    return isTaken && pid !== undefined
      ? { check, verdict: "ok", found: `a program listens at ${address}` }
      : { check, verdict: "fail", found };
  }
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

/** A folder that no socket can be made in. */
export function missingFolderFinding(folder: string, error: unknown): Finding {
  const check = "folder";
  const make = `install -d -m 0750 ${folder}`;
  return isRuntimeFolder(folder, error)
    ? {
        check,
        verdict: "warn",
        found: `${folder} is not there: nobody serves here now`,
        advice: `nothing, when a unit makes it at its start (RuntimeDirectory=); else: ${make}`,
      }
    : {
        check,
        verdict: "fail",
        found: `cannot make a socket in ${folder}: ${errorText(error)}`,
        advice: `make it, writable for the backend's user: ${make}`,
      };
}

// --- internal ---

/** sun_path less its NUL (unix(7)). */
const PATH_BYTES_MAX = 107;
const ECONNREFUSED = -111;
/** Of /proc/net/unix: number, references, protocol, flags, type, state, inode, name. */
const LISTENING_FLAGS = "00010000";
const NAME_FIELD = 7;

const OF_BACKEND = "that of the backend";

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
    return missingFolderFinding(folder, error);
  }
  return stats.isDirectory()
    ? modeFinding(folder, stats.mode)
    : { check, verdict: "fail", found: `${folder} is no folder`, advice: "name another path" };
}

/** Such folders go with the service that they belong to. */
function isRuntimeFolder(folder: string, error: unknown): boolean {
  const isMissing = error instanceof Error && "code" in error && error.code === "ENOENT";
  return isMissing && /^\/(var\/)?run\/./.test(resolve(folder));
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
    operatingErrorText(error);
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
