/** `ubiblk stripe-server`: serves the stripes of a disk, or of an archive, to other hosts. */
import { defineCommand } from "citty";
import {
  loadArchiveConfig,
  loadDeviceConfig,
  loadServerConfig,
  resolveSecrets,
  type ServerConfig,
  socketRights,
} from "../config/index.ts";
import { DiskSecrets } from "../device/disk-secrets.ts";
import { XtsCipher } from "../disk/cipher.ts";
import { AssertionError, UbiError } from "../errors.ts";
import { countStripes, stripeBytes } from "../formats/metadata.ts";
import { log } from "../log.ts";
import { parseServerAddress, type ServerAddress } from "../remote/server-address.ts";
import { loadLegacyConfig } from "../serve/legacy-config.ts";
import { ServedDisk } from "../serve/served-disk.ts";
import { ServerStatistics } from "../serve/server-statistics.ts";
import { StripeServer, type StripeServerOptions } from "../serve/stripe-server.ts";
import { type InheritedSocket, openService } from "../service/index.ts";
import { hardenOrWarn } from "./hardening.ts";
import { logWithoutWaiting } from "./log-without-waiting.ts";
import { metricPlaces, startMetrics } from "./metrics-listener.ts";
import { rpcPlace, startRpc } from "./rpc-socket.ts";
import { serverAnswers } from "./server-answers.ts";
import { dropStartLeftovers } from "./start-leftovers.ts";
import { StopSignals } from "./stop-signals.ts";
import { refuseUpgradeSignal } from "./upgrades.ts";

export default defineCommand({
  meta: {
    name: "stripe-server",
    description:
      "Serves the stripes of a disk that no backend uses, or of an archive, to other hosts",
  },
  args: {
    config: {
      type: "string",
      alias: "f",
      valueHint: "FILE",
      description: "device configuration of the disk",
    },
    "listen-config": {
      type: "string",
      required: true,
      valueHint: "FILE",
      description: "configuration with [server]: where to listen, and the key of the clients",
    },
    archive: {
      type: "string",
      valueHint: "FILE",
      description: "configuration with [archive]: serve that archive instead of a disk",
    },
    legacy: {
      type: "boolean",
      default: false,
      description: "--config is the YAML file of a disk of version 0.2",
    },
    "legacy-kek": {
      type: "string",
      valueHint: "FILE",
      description: "YAML file with the key that its keys are wrapped with",
    },
  },
  run: ({ args }) =>
    serve(
      whatToServe({
        configPath: args.config,
        archivePath: args.archive,
        isLegacy: args.legacy,
        kekPath: args["legacy-kek"],
      }),
      args["listen-config"],
    ),
});

// --- internal ---

type Served =
  | { readonly kind: "disk"; readonly path: string }
  | { readonly kind: "archive"; readonly path: string }
  | { readonly kind: "legacy"; readonly path: string; readonly kekPath: string | undefined };

function whatToServe(flags: {
  readonly configPath: string | undefined;
  readonly archivePath: string | undefined;
  readonly isLegacy: boolean;
  readonly kekPath: string | undefined;
}): Served {
  const { configPath, archivePath, isLegacy, kekPath } = flags;
  if (kekPath !== undefined && !isLegacy) {
    throw new UbiError("E_USAGE", "--legacy-kek requires --legacy");
  }
  if (archivePath !== undefined) {
    if (configPath !== undefined || isLegacy) {
      throw new UbiError("E_USAGE", "--archive stands instead of --config and --legacy");
    }
    return { kind: "archive", path: archivePath };
  }
  if (configPath === undefined) {
    throw new UbiError("E_USAGE", "-f, --config: missing; name it, or an --archive");
  }
  return isLegacy
    ? { kind: "legacy", path: configPath, kekPath }
    : { kind: "disk", path: configPath };
}

async function serve(served: Served, listenPath: string): Promise<void> {
  await logWithoutWaiting();
  hardenOrWarn();
  refuseUpgradeSignal();
  const service = await openService(["stripes", "rpc"]);
  const { manager } = service;
  let server: StripeServer | undefined;
  const failures: string[] = [];
  const onFailure = (message: string) => {
    failures.push(message);
    server?.fail(message);
  };
  // The document of the disk is the first to be read, that of the clients the second; keys come last.
  const open = await prepare(served, onFailure);
  const listenConfig = await loadServerConfig(listenPath);
  const rpcSocket = rpcPlace("server", listenConfig.server, service);
  const listening = listeningOf(listenConfig, service.inherited?.all("stripes") ?? []);
  const disk = await open();
  const signals = new StopSignals();
  const statistics = ServerStatistics.create(listenConfig.server.maxConnections);
  // Before the server, so that no client sees one whose start fails; after it at the stop, so that it can be watched.
  const answer = serverAnswers(listenConfig, {
    disk,
    statistics,
    server: () => server,
    stop: () => signals.ask("rpc"),
  });
  using rpc = startRpc("server", rpcSocket, answer);
  using metrics = await startMetrics(metricPlaces("server", listenConfig.server), answer);
  server = await startServer(disk, listenConfig, { ...listening, statistics });
  for (const failure of failures) {
    server.fail(failure);
  }
  tellStart(server, disk, listenConfig);
  if (rpc !== undefined) {
    log.info("answering RPC", { socket: rpc.path });
  }
  if (metrics !== undefined) {
    log.info("telling metrics", { at: metrics.places.join(",") });
  }
  manager?.ready(`serving the stripes of ${disk.name}`, server.heartbeat);
  dropStartLeftovers();
  await Promise.race([signals.first, server.ended]);
  log.info("stopping", { signal: signals.name });
  manager?.stopping("answers under way are sent");
  await server.stop();
  await disk[Symbol.asyncDispose]();
  signals.end();
  log.info("stopped");
}

/** Loads the document; what it returns opens the disk. */
async function prepare(
  served: Served,
  onFailure: (message: string) => void,
): Promise<() => Promise<ServedDisk>> {
  switch (served.kind) {
    case "disk": {
      const config = await loadDeviceConfig(served.path);
      return () => openDisk(config, onFailure);
    }
    case "archive": {
      const config = await loadArchiveConfig(served.path);
      return async () => {
        using secrets = await resolveSecrets(config, ["archive"]);
        const settings = { type: "archive", ...config.archive } as const;
        return await ServedDisk.openArchive(settings, secrets, onFailure);
      };
    }
    case "legacy":
      return () => openLegacyDisk(served.path, served.kekPath, onFailure);
  }
}

async function openDisk(
  config: Awaited<ReturnType<typeof loadDeviceConfig>>,
  onFailure: (message: string) => void,
): Promise<ServedDisk> {
  let secrets: DiskSecrets | undefined;
  try {
    return await ServedDisk.open({
      config,
      ioEngine: config.tuning.ioEngine,
      openCipher: async () => {
        secrets = await DiskSecrets.read(config);
        return secrets.cipher;
      },
      sourceSecrets: () => {
        if (secrets === undefined) {
          throw new AssertionError("the key of the disk is read before those of its source");
        }
        return secrets.ofSource();
      },
      onFailure,
    });
  } finally {
    secrets?.[Symbol.dispose]();
  }
}

async function openLegacyDisk(
  path: string,
  kekPath: string | undefined,
  onFailure: (message: string) => void,
): Promise<ServedDisk> {
  const { config, xtsKey } = await loadLegacyConfig(path, kekPath);
  try {
    return await ServedDisk.open({
      config,
      ioEngine: "io_uring",
      openCipher: async () => (xtsKey === undefined ? undefined : XtsCipher.create(xtsKey)),
      sourceSecrets: () => {
        throw new AssertionError("an image needs no secret");
      },
      onFailure,
    });
  } finally {
    xtsKey?.fill(0);
  }
}

async function startServer(
  disk: ServedDisk,
  config: ServerConfig,
  parts: Pick<StripeServerOptions, "addresses" | "unixRights" | "inherited" | "statistics">,
): Promise<StripeServer> {
  const { psk } = config.server;
  using secrets = await resolveSecrets(config, ["server"]);
  return await StripeServer.start(disk, {
    ...parts,
    psk:
      psk === undefined ? undefined : { identity: psk.identity, secret: secrets.get(psk.secret) },
    limits: {
      handshakeMs: config.server.connectTimeoutMs,
      answerMs: config.server.operationAttemptTimeoutMs,
      idleMs: config.server.idleTimeoutMs,
    },
    connectionsMax: config.server.maxConnections,
  });
}

/** Where to listen, and who may connect. @throws UbiError E_CONFIG_VALUE, E_CONFIG_DANGER */
function listeningOf(
  { server, dangerZone }: ServerConfig,
  sockets: readonly InheritedSocket[],
): Pick<StripeServerOptions, "addresses" | "unixRights" | "inherited"> {
  const { address, unixSocket, psk } = server;
  const { unixSocketMode: mode, unixSocketOwner: owner, unixSocketGroup: group } = server;
  const addresses: ServerAddress[] = address === undefined ? [] : [parseServerAddress(address)];
  if (unixSocket !== undefined) {
    addresses.push({ kind: "unix", path: unixSocket });
  }
  const isAllowed = dangerZone.enabled && dangerZone.allowUnencryptedConnection;
  const open = sockets.find(({ kind }) => kind === "internet" && psk === undefined && !isAllowed);
  if (open !== undefined) {
    const what = `the socket at ${open.address}, which this program was started with`;
    const advice =
      "add psk, or set danger_zone.enabled with danger_zone.allow_unencrypted_connection";
    throw new UbiError("E_CONFIG_DANGER", `server.psk: missing for ${what}; ${advice}`);
  }
  const inherited = sockets.map(({ fd, kind, address: name }) => ({
    fd,
    name,
    isLocal: kind === "unix" || name.startsWith("127.") || name.startsWith("[::1]:"),
  }));
  return {
    addresses,
    unixRights: socketRights("server.unix_socket", { mode, owner, group }),
    inherited,
  };
}

function tellStart(server: StripeServer, disk: ServedDisk, { server: config }: ServerConfig): void {
  const open = server.places.filter(({ isLocal }) => !isLocal && config.psk === undefined);
  for (const { name } of open) {
    log.warn("no psk: whoever reaches this address can read the disk", { address: name });
  }
  const { metadata } = disk;
  const { unfetched } = countStripes(metadata.flags);
  for (const { name } of server.places) {
    log.info(`listening on ${name}`, {
      serves: disk.name,
      stripes: metadata.stripeCount,
      stripe_bytes: stripeBytes(metadata),
      from_source: unfetched,
      tls: config.psk !== undefined,
    });
  }
}
