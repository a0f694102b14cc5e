/**
 * A front end of our own, for measuring and verifying any vhost-user-blk backend. With the backend it
 * shares formats, the native library, errors and the log, nothing else: a mistake in one is not in both.
 */
export { reportText } from "./report.ts";
export { runBench } from "./run.ts";
export { type BenchSettings, WORKLOADS, type WorkloadName } from "./settings.ts";
