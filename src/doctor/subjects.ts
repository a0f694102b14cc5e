/** All that is examined, in the order of the report: the machine, then the disk of a configuration. */
import type { Subject } from "./finding.ts";

export const SUBJECTS: readonly Subject[] = [
  { name: "program", load: async () => (await import("./program-checks.ts")).examineProgram },
  { name: "machine", load: async () => (await import("./machine-checks.ts")).examineMachine },
  { name: "limits", load: async () => (await import("./limit-checks.ts")).examineLimits },
  { name: "io_uring", load: async () => (await import("./uring-checks.ts")).examineUring },
  { name: "ublk", load: async () => (await import("./ublk-checks.ts")).examineUblk },
  { name: "cipher", load: async () => (await import("./cipher-checks.ts")).examineCiphers },
  { name: "guests", load: async () => (await import("./guest-checks.ts")).examineGuests },
  {
    name: "configuration",
    load: async () => (await import("./config-checks.ts")).examineConfig,
    isVital: true,
  },
  {
    name: "secrets",
    load: async () => (await import("./secret-checks.ts")).examineSecrets,
    isOfConfig: true,
  },
  {
    name: "data_path",
    load: async () => (await import("./data-checks.ts")).examineData,
    isOfConfig: true,
  },
  {
    name: "metadata_path",
    load: async () => (await import("./metadata-checks.ts")).examineMetadata,
    isOfConfig: true,
  },
  {
    name: "vhost_socket",
    load: async () => (await import("./socket-checks.ts")).examineVhostSocket,
    isOfConfig: true,
  },
  {
    name: "rpc_socket",
    load: async () => (await import("./socket-checks.ts")).examineRpcSocket,
    isOfConfig: true,
  },
  {
    name: "metrics_socket",
    load: async () => (await import("./socket-checks.ts")).examineMetricsSocket,
    isOfConfig: true,
  },
  {
    name: "metrics_address",
    load: async () => (await import("./socket-checks.ts")).examineMetricsAddress,
    isOfConfig: true,
  },
  {
    name: "stripe_source",
    load: async () => (await import("./source-checks.ts")).examineSource,
    isOfConfig: true,
  },
  {
    name: "resources",
    load: async () => (await import("./resource-checks.ts")).examineResources,
    isOfConfig: true,
  },
];
