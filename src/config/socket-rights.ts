/**
 * Who may connect to a Unix socket that a document names: the keys `..._mode`, `..._owner` and `..._group` beside the
 * socket's own. Names are looked up in the files of this machine only: asking a directory service could take
 * as long as it likes.
 */
import { readFileSync } from "node:fs";
import { errorText, UbiError } from "../errors.ts";
import type { SocketRights } from "../ffi/socket.ts";
import type { Findings } from "./findings.ts";
import type { KeyPath } from "./key-positions.ts";

/** The keys of one socket, as the document has them. */
interface RightsSettings {
  /** Octal. */
  readonly mode: string | undefined;
  /** A name, or a number. */
  readonly owner: string | undefined;
  readonly group: string | undefined;
}

/** Owner and group of the process may connect. */
const MODE_DEFAULT = 0o660;

/**
 * @param key of the socket's path, for messages: `device.vhost_socket`
 * @throws UbiError E_CONFIG_VALUE when there is no such user or group
 */
export function socketRights(key: string, { mode, owner, group }: RightsSettings): SocketRights {
  return {
    mode: mode === undefined ? MODE_DEFAULT : Number.parseInt(mode, 8),
    owner: owner === undefined ? undefined : idOf("/etc/passwd", owner, `${key}_owner`),
    group: group === undefined ? undefined : idOf("/etc/group", group, `${key}_group`),
  };
}

/**
 * Rules of these keys.
 * @param key of the socket's path, whose value is `path`
 */
export function checkSocketRights(
  key: KeyPath,
  settings: RightsSettings & { readonly path: string | undefined },
  findings: Findings,
): void {
  const [section = "", socket = ""] = key;
  const { path, mode, owner, group } = settings;
  for (const [name, value] of Object.entries({ mode, owner, group })) {
    if (path === undefined && value !== undefined) {
      findings.warn([section, `${socket}_${name}`], `has no effect without ${key.join(".")}`);
    }
  }
  if (path !== undefined && mode !== undefined && isOpenToAll(mode)) {
    const message = "every user of this machine may connect, and use the disk or see what it does";
    findings.warn([section, `${socket}_mode`], message);
  }
}

// --- internal ---

/** To connect takes the right to write. */
function isOpenToAll(mode: string): boolean {
  return (Number.parseInt(mode, 8) & 0o002) !== 0;
}

/** 2^32 - 1 means "leave it as it is" to the kernel. */
const ID_MAX = 2 ** 32 - 2;

/** Both files have the name first and the number third (passwd(5), group(5)). */
function idOf(file: string, name: string, key: string): number {
  if (/^[0-9]+$/.test(name)) {
    const id = Number(name);
    if (id > ID_MAX) {
      throw new UbiError("E_CONFIG_VALUE", `${key}: ${name} is no number of a user or group`);
    }
    return id;
  }
  const entry = linesOf(file, key)
    .map((line) => line.split(":"))
    .find(([known]) => known === name);
  const id = entry?.[2];
  if (id === undefined || !/^[0-9]+$/.test(id)) {
    const message = `${key}: there is no ${JSON.stringify(name)} in ${file}; make it, or give a number`;
    throw new UbiError("E_CONFIG_VALUE", message);
  }
  return Number(id);
}

function linesOf(file: string, key: string): readonly string[] {
  try {
    return readFileSync(file, "utf8").split("\n");
  } catch (error) {
    throw new UbiError("E_CONFIG_VALUE", `${key}: cannot read ${file}: ${errorText(error)}`);
  }
}
