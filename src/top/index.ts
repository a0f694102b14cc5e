/**
 * The live view of running backends, over their RPC sockets: what each queue does, how far the fetch is.
 * It is a client like any other: with the backends it shares errors and the log, nothing else.
 */
export { runTop, type TopSettings } from "./run.ts";
