/**
 * The RPC server: tells programs on this machine what the disk does. Clients connect to a Unix socket
 * and send one JSON object per line; docs/rpc.md has the commands, answers and limits.
 */
export { RpcServer } from "./server.ts";
