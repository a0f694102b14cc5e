/** Rules that a schema cannot say: between keys of one section, and between sections. */
import type { Static } from "@sinclair/typebox";
import type { DangerGate } from "./danger-zone.ts";
import type { Findings } from "./findings.ts";
import { burstMistake, LIMITS } from "./limit-rules.ts";
import { isLoopback } from "./loopback.ts";
import { checkMetricsSocket } from "./metrics-rules.ts";
import type {
  ArchiveStoreSection,
  DeviceSection,
  LimitsSection,
  ServerSection,
  StripeSourceSection,
  TuningSection,
} from "./schema.ts";
import { checkSocketRights } from "./socket-rights.ts";

type StripeSource = Static<typeof StripeSourceSection>;
type ArchiveStore = Static<typeof ArchiveStoreSection>;
type S3Store = Extract<ArchiveStore, { storage: "s3" }>;
/** `[server]`, or a remote source, whose schema demands the address. */
type Remote = Pick<Static<typeof ServerSection>, "address" | "psk" | "unix_socket">;

export function checkDevice(device: Static<typeof DeviceSection>, findings: Findings): void {
  const idBytes = new TextEncoder().encode(device.device_id).length;
  if (idBytes > DEVICE_ID_BYTES) {
    const message = `${idBytes} bytes; a guest sees the first ${DEVICE_ID_BYTES} only`;
    findings.warn(["device", "device_id"], message);
  }
  const owners = new Map<string, string>();
  for (const key of DEVICE_PATHS) {
    const path = device[key];
    const owner = path === undefined ? undefined : owners.get(path);
    if (owner !== undefined) {
      findings.error("E_CONFIG_VALUE", ["device", key], `the same path as device.${owner}`);
    } else if (path !== undefined) {
      owners.set(path, key);
    }
  }
  checkMetricsSocket("device", device, findings);
  checkSocketRights(
    ["device", "vhost_socket"],
    {
      path: device.vhost_socket,
      mode: device.vhost_socket_mode,
      owner: device.vhost_socket_owner,
      group: device.vhost_socket_group,
    },
    findings,
  );
  checkSocketRights(
    ["device", "rpc_socket"],
    {
      path: device.rpc_socket,
      mode: device.rpc_socket_mode,
      owner: device.rpc_socket_owner,
      group: device.rpc_socket_group,
    },
    findings,
  );
}

export function checkQueueSize(queueSize: number, findings: Findings): void {
  if (!Number.isInteger(Math.log2(queueSize))) {
    const message = `${queueSize} is not a power of two; 1 to 32768 is accepted`;
    findings.error("E_CONFIG_VALUE", ["tuning", "queue_size"], message);
  }
}

export function checkTuning(tuning: Static<typeof TuningSection>, findings: Findings): void {
  const { num_queues, cpus } = tuning;
  if (cpus !== undefined && cpus.length !== num_queues) {
    const message = `${cpus.length} entries for ${num_queues} queues; one for each is expected`;
    findings.error("E_CONFIG_VALUE", ["tuning", "cpus"], message);
  }
}

export function checkLimits(limits: Static<typeof LimitsSection>, findings: Findings): void {
  for (const { rate, burst } of LIMITS) {
    const mistake = burstMistake(
      { perSecond: limits[rate], burst: limits[burst] },
      `limits.${rate}`,
    );
    if (mistake !== undefined) {
      findings.error("E_CONFIG_VALUE", ["limits", burst], mistake);
    }
  }
}

/** Limits of the kernel's ublk driver, and of the memory that a queue's requests have. */
export function checkUblkTuning(tuning: Static<typeof TuningSection>, findings: Findings): void {
  const { queue_size, ublk_max_io_bytes } = tuning;
  if (queue_size > UBLK_QUEUE_SIZE_MAX) {
    const message = `${queue_size} is out of range for ublk; 1 to ${UBLK_QUEUE_SIZE_MAX} is accepted`;
    findings.error("E_CONFIG_VALUE", ["tuning", "queue_size"], message);
  }
  if (ublk_max_io_bytes % UBLK_IO_UNIT_BYTES !== 0) {
    const message = `${ublk_max_io_bytes} is not a multiple of ${UBLK_IO_UNIT_BYTES}`;
    findings.error("E_CONFIG_VALUE", ["tuning", "ublk_max_io_bytes"], message);
  } else if (queue_size * ublk_max_io_bytes > UBLK_QUEUE_BYTES_MAX) {
    const message = "times tuning.queue_size is more than the 4 GiB that a queue may have";
    findings.error("E_CONFIG_VALUE", ["tuning", "ublk_max_io_bytes"], message);
  }
}

export function checkStripeSource(
  source: StripeSource,
  gate: DangerGate,
  findings: Findings,
): void {
  switch (source.type) {
    case "raw":
      if (source.record !== undefined && !source.copy_on_read) {
        const message = "needs stripe_source.copy_on_read: what is not fetched is not recorded";
        findings.error("E_CONFIG_VALUE", ["stripe_source", "record"], message);
      }
      break;
    case "archive":
      checkArchiveStore("stripe_source", source, gate, findings);
      break;
    case "remote":
      checkRemote("stripe_source", source, gate, findings);
  }
}

export function checkArchiveStore(
  section: string,
  store: ArchiveStore,
  gate: DangerGate,
  findings: Findings,
): void {
  if (store.storage === "s3") {
    checkS3(section, store, findings);
    checkCredentials(section, store, gate, findings);
    checkEndpoint(section, store, gate, findings);
  }
}

export function checkRemote(
  section: string,
  remote: Remote,
  gate: DangerGate,
  findings: Findings,
): void {
  const isLocal = remote.address === undefined && remote.unix_socket !== undefined;
  if (remote.psk === undefined) {
    if (!isLocal && !gate.allows("allow_unencrypted_connection", section)) {
      findings.error("E_CONFIG_DANGER", [section, "psk"], PSK_REQUIRED);
    }
  } else {
    const path = [section, "psk", "identity"];
    const identityBytes = new TextEncoder().encode(remote.psk.identity).length;
    if (identityBytes > PSK_IDENTITY_BYTES_MAX) {
      const message = `${identityBytes} bytes; at most ${PSK_IDENTITY_BYTES_MAX} are accepted`;
      findings.error("E_CONFIG_VALUE", path, message);
    }
    if (remote.psk.identity.includes("\0")) {
      findings.error("E_CONFIG_VALUE", path, "must not contain a NUL character");
    }
  }
  if (remote.address === undefined) {
    if (remote.unix_socket === undefined) {
      findings.error("E_CONFIG", [section, "address"], ADDRESS_MISSING);
    }
  } else if (!isAddress(remote.address)) {
    findings.error("E_CONFIG_VALUE", [section, "address"], ADDRESS_EXPECTED);
  }
}

export function checkServer(server: Static<typeof ServerSection>, findings: Findings): void {
  if (server.rpc_socket !== undefined && server.rpc_socket === server.unix_socket) {
    const message = "the same path as server.unix_socket";
    findings.error("E_CONFIG_VALUE", ["server", "rpc_socket"], message);
  }
  const { metrics_socket: socket } = server;
  for (const key of ["unix_socket", "rpc_socket"] as const) {
    if (socket !== undefined && socket === server[key]) {
      const message = `the same path as server.${key}`;
      findings.error("E_CONFIG_VALUE", ["server", "metrics_socket"], message);
    }
  }
  checkMetricsSocket("server", server, findings);
  checkSocketRights(
    ["server", "unix_socket"],
    {
      path: server.unix_socket,
      mode: server.unix_socket_mode,
      owner: server.unix_socket_owner,
      group: server.unix_socket_group,
    },
    findings,
  );
  checkSocketRights(
    ["server", "rpc_socket"],
    {
      path: server.rpc_socket,
      mode: server.rpc_socket_mode,
      owner: server.rpc_socket_owner,
      group: server.rpc_socket_group,
    },
    findings,
  );
}

// --- internal ---

const DEVICE_ID_BYTES = 20;
const DEVICE_PATHS = [
  "data_path",
  "metadata_path",
  "vhost_socket",
  "rpc_socket",
  "metrics_socket",
] as const;
const UBLK_QUEUE_SIZE_MAX = 4096;
const UBLK_IO_UNIT_BYTES = 4096;
const UBLK_QUEUE_BYTES_MAX = 2 ** 32;
const PSK_IDENTITY_BYTES_MAX = 255;
const PSK_REQUIRED =
  "missing: a connection without PSK is not encrypted; add psk, or set danger_zone.enabled with " +
  "danger_zone.allow_unencrypted_connection";
const ADDRESS_MISSING = "missing: this key is required where there is no unix_socket";
const ENDPOINT_EXPECTED = "not a URL of a service; https://HOST[:PORT][/PATH] is expected";
const HTTPS_REQUIRED =
  "http to another machine is not encrypted; use https, or set danger_zone.enabled with " +
  "danger_zone.allow_unencrypted_connection";
const ENVIRONMENT_REFUSED =
  '"environment" reads secrets of the environment, which other processes of the user and children see; choose ' +
  "another place, or set danger_zone.enabled with danger_zone.allow_env_secrets";
const ADDRESS_EXPECTED =
  "not an address; HOST:PORT or [IPv6]:PORT is expected, with a PORT up to 65535";

function checkS3(section: string, store: S3Store, findings: Findings): void {
  const parts = store.prefix?.split("/") ?? [];
  if (parts.includes("..") || parts.includes(".")) {
    const message = 'must not have "." or ".." as a part of the prefix';
    findings.error("E_CONFIG_VALUE", [section, "prefix"], message);
  }
  for (const key of ["region", "storage_class", "server_side_encryption"] as const) {
    if (store[key] !== undefined && !/^[A-Za-z0-9:_.-]+$/.test(store[key])) {
      findings.error("E_CONFIG_VALUE", [section, key], "must have letters, digits and :_.- only");
    }
  }
  const retry = store.rate_limited_retry;
  if (retry.enabled && retry.min_delay_ms === 0) {
    const path = [section, "rate_limited_retry", "min_delay_ms"];
    findings.error("E_CONFIG_VALUE", path, "must be above 0 when rate_limited_retry is enabled");
  }
}

/** Either secrets of the document, or a list of other places. */
function checkCredentials(
  section: string,
  store: S3Store,
  gate: DangerGate,
  findings: Findings,
): void {
  const { credentials } = store;
  for (const key of ["access_key_id", "secret_access_key", "session_token"] as const) {
    if (credentials === undefined && store[key] === undefined && key !== "session_token") {
      findings.error("E_CONFIG", [section, key], "missing: this key is required");
    } else if (credentials !== undefined && store[key] !== undefined) {
      const message = `must not be given beside ${section}.credentials, which says where they are found`;
      findings.error("E_CONFIG_VALUE", [section, key], message);
    }
  }
  const user = `${section}.credentials`;
  if (credentials?.includes("environment") && !gate.allows("allow_env_secrets", user)) {
    findings.error("E_CONFIG_DANGER", [section, "credentials"], ENVIRONMENT_REFUSED);
  }
  if (credentials?.includes("profile") || credentials?.includes("web_identity")) {
    // Noted for the report only: a file is refused when it is read, and only then.
    gate.allows("allow_secret_over_regular_file", user);
  }
}

/** Requests are signed but not secret without TLS, and an answer can be forged. */
function checkEndpoint(
  section: string,
  store: S3Store,
  gate: DangerGate,
  findings: Findings,
): void {
  const path = [section, "endpoint"];
  if (store.endpoint === undefined) {
    if (store.region === "auto") {
      const message = "AWS has no such region; name it, or set endpoint for another service";
      findings.error("E_CONFIG_VALUE", [section, "region"], message);
    }
    return;
  }
  const url = URL.canParse(store.endpoint) ? new URL(store.endpoint) : undefined;
  if (url === undefined || (url.protocol !== "http:" && url.protocol !== "https:")) {
    findings.error("E_CONFIG_VALUE", path, ENDPOINT_EXPECTED);
  } else if (url.username !== "" || url.password !== "" || url.search !== "" || url.hash !== "") {
    findings.error("E_CONFIG_VALUE", path, "must not have a user, a password, ? or #");
  } else if (
    url.protocol === "http:" &&
    !isLoopback(url.hostname) &&
    !gate.allows("allow_unencrypted_connection", `${section}.endpoint`)
  ) {
    findings.error("E_CONFIG_DANGER", path, HTTPS_REQUIRED);
  }
  if (store.ca_file !== undefined && url?.protocol === "http:") {
    findings.warn([section, "ca_file"], "has no effect: the endpoint is not https");
  }
}

/** Whether `address` reads `HOST:PORT` or `[V6]:PORT`, with a port of 0 to 65535. */
function isAddress(address: string): boolean {
  const match = /^(?:\[([0-9A-Fa-f:.%a-zA-Z]+)\]|([^\s:[\]/@]+)):([0-9]{1,5})$/.exec(address);
  return match !== null && Number(match[3]) <= 65535;
}
