/** The RPC socket of a command that serves. */
import { socketRights } from "../config/index.ts";
import type { SocketPlace } from "../ffi/socket-file.ts";
import { type AnswerRequest, RpcServer } from "../rpc/index.ts";
import { type Service, socketPlace } from "../service/index.ts";

/** Of a section, however it is called. */
interface RpcSettings {
  readonly rpcSocket?: string | undefined;
  readonly rpcSocketMode?: string | undefined;
  readonly rpcSocketOwner?: string | undefined;
  readonly rpcSocketGroup?: string | undefined;
}

type Section = "device" | "server";

/** Undefined when there is to be none. @throws UbiError E_CONFIG_VALUE */
export function rpcPlace(
  section: Section,
  settings: RpcSettings,
  service: Service,
): SocketPlace | undefined {
  const { rpcSocketMode: mode, rpcSocketOwner: owner, rpcSocketGroup: group } = settings;
  const key = keyOf(section);
  const rights = socketRights(key, { mode, owner, group });
  return socketPlace(service, "rpc", { key, path: settings.rpcSocket, rights });
}

/** @throws UbiError E_SOCKET, E_SOCKET_IN_USE, E_SOCKET_NOT_OURS */
export function startRpc(
  section: Section,
  place: SocketPlace | undefined,
  answer: AnswerRequest,
): RpcServer | undefined {
  return place === undefined ? undefined : RpcServer.start(place, keyOf(section), answer);
}

// --- internal ---

function keyOf(section: Section): string {
  return `${section}.rpc_socket`;
}
