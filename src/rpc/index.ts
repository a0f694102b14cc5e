/**
 * The RPC server: tells programs on this machine what is going on. Clients connect to a Unix socket
 * and send one JSON object per line; docs/rpc.md has the commands, answers and limits.
 */
export type { AnswerRequest } from "./answer-lines.ts";
export { diskAnswer } from "./answers.ts";
export { deviceAnswer } from "./device-command.ts";
export { processAnswer } from "./process-command.ts";
export { RpcServer } from "./server.ts";
