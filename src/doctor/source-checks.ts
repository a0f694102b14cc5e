/**
 * The stripe source: opened as a backend would where its secrets can be read, otherwise as far as it can be seen
 * without them.
 */
import { connect } from "node:net";
import { resolve } from "node:path";
import { MAPPING_KEY, METADATA_KEY } from "../archive/archive-manifest.ts";
import { FilesystemStore } from "../archive/filesystem-store.ts";
import type { DeviceConfig } from "../config/index.ts";
import { InputFile } from "../copy/input-file.ts";
import { openDiskSource, openSource, type WorkerSourceSettings } from "../device/open-source.ts";
import { errorText, UbiError } from "../errors.ts";
import { ARCHIVE_METADATA_BYTES_MAX, decodeArchiveMetadata } from "../formats/archive-metadata.ts";
import { SECTOR_BYTES } from "../formats/virtio-blk.ts";
import type { OpenedSource } from "../sources/opened-source.ts";
import type { CheckContext } from "./check-context.ts";
import type { Finding } from "./finding.ts";
import { examineService } from "./service-checks.ts";

export async function* examineSource(context: CheckContext): AsyncGenerator<Finding> {
  const config = await context.config();
  const settings = config.stripeSource;
  if (settings === undefined) {
    return;
  }
  if (settings.type === "raw") {
    yield* imageFindings(settings.imagePath, config);
    return;
  }
  const isRemote = settings.type === "remote" || settings.storage === "s3";
  if (isRemote && context.options.isOffline) {
    yield {
      check: "reach",
      verdict: "skip",
      found: "--offline: nothing is asked over the network",
    };
    return;
  }
  const answer = await context.secretsOf("stripe_source");
  if (answer.kind === "unread") {
    yield* settings.type === "remote"
      ? serverFindings(settings.address)
      : settings.storage === "s3"
        ? examineService(settings)
        : folderFindings(settings.path);
    yield { check: "content", verdict: "skip", found: `needs its secrets, ${answer.why}` };
    return;
  }
  try {
    const quick = withoutPatience(settings);
    const { metadata } = context;
    await using source = await (metadata === undefined
      ? openSource(quick, answer.secrets, { signal: AbortSignal.timeout(OPEN_MS) })
      : openDiskSource(quick, answer.secrets, { metadata, signal: AbortSignal.timeout(OPEN_MS) }));
    yield { check: "content", verdict: "ok", found: contentText(source, metadata !== undefined) };
  } catch (error) {
    yield { check: "content", verdict: "fail", found: told(error), advice: OPEN_ADVICE };
  }
}

// --- internal ---

const OPEN_MS = 8_000;
const CONNECT_MS = 3_000;
const OPEN_ADVICE = "do what the message says; stripes that are not fetched yet cannot be had";

/** The limits of a check instead of those of a service that has all day. */
function withoutPatience(settings: WorkerSourceSettings): WorkerSourceSettings {
  const limits = { connectTimeoutMs: CONNECT_MS, operationAttemptTimeoutMs: CONNECT_MS };
  if (settings.type === "remote") {
    return { ...settings, ...limits };
  }
  return settings.storage === "s3" ? { ...settings, ...limits, maxAttempts: 1 } : settings;
}

function contentText({ name, sectors, stripeSectors }: OpenedSource, isFitting: boolean): string {
  const stripes = Math.ceil(sectors / stripeSectors);
  const fit = isFitting ? ", and fits the disk" : "";
  return `${name} has ${stripes} stripes of ${stripeSectors * SECTOR_BYTES} bytes${fit}`;
}

function* imageFindings(path: string, { device }: DeviceConfig): Generator<Finding> {
  const check = "image";
  try {
    using image = new InputFile(path, "image");
    using disk = new InputFile(device.dataPath);
    yield image.sizeBytes > disk.sizeBytes
      ? {
          check,
          verdict: "fail",
          found: `image ${path} has ${image.sizeBytes} bytes, the disk only ${disk.sizeBytes}`,
          advice: "make the disk as large as the image (truncate), then its metadata",
        }
      : { check, verdict: "ok", found: `${path}, ${image.sizeBytes} bytes` };
  } catch (error) {
    yield { check, verdict: "fail", found: told(error), advice: "mend image_path, or give access" };
  }
}

/** What an archive tells without its key. None of it is authenticated here. */
async function* folderFindings(path: string): AsyncGenerator<Finding> {
  const check = "archive";
  try {
    const absolute = resolve(path);
    await using store = FilesystemStore.open({ kind: "filesystem", path: absolute, role: "read" });
    const bytes = await store.get(METADATA_KEY, { lengthMax: ARCHIVE_METADATA_BYTES_MAX });
    const mappingBytes = await store.sizeOf(MAPPING_KEY);
    if (bytes === undefined || mappingBytes === undefined) {
      const missing = bytes === undefined ? METADATA_KEY : MAPPING_KEY;
      const advice = "name the folder of a whole archive";
      yield { check, verdict: "fail", found: `${path} has no ${missing}`, advice };
      return;
    }
    const { stripeSectors, encryptionKey } = decodeArchiveMetadata(bytes);
    const kind = encryptionKey === undefined ? "not enciphered" : "enciphered";
    const found = `${path}: stripes of ${stripeSectors * SECTOR_BYTES} bytes, ${kind}`;
    yield { check, verdict: "ok", found };
  } catch (error) {
    yield { check, verdict: "fail", found: told(error), advice: OPEN_ADVICE };
  }
}

async function* serverFindings(address: string): AsyncGenerator<Finding> {
  const check = "server";
  const { parseServerAddress, resolveServer, serverName } = await import(
    "../remote/server-address.ts"
  );
  const server = parseServerAddress(address);
  try {
    const [host = ""] = await resolveServer(server);
    const port = server.kind === "tcp" ? server.port : 0;
    await reach(host, port);
    yield { check, verdict: "ok", found: `${serverName(server)} takes connections (${host})` };
  } catch (error) {
    const found = `${serverName(server)}: ${errorText(error)}`;
    yield {
      check,
      verdict: "fail",
      found,
      advice: "check the address, the network and the server",
    };
  }
}

/** @throws Error when nobody takes the connection in time */
async function reach(host: string, port: number): Promise<void> {
  const socket = connect({ host, port, timeout: CONNECT_MS });
  try {
    await new Promise<void>((done, fail) => {
      socket.once("connect", () => done());
      socket.once("error", fail);
      socket.once("timeout", () => fail(new Error(`no connection within ${CONNECT_MS} ms`)));
    });
  } finally {
    socket.destroy();
  }
}

/** @throws what is no operating error */
function told(error: unknown): string {
  if (error instanceof UbiError) {
    return errorText(error);
  }
  if (error instanceof DOMException && error.name === "TimeoutError") {
    return `no answer within ${OPEN_MS / 1000} s`;
  }
  throw error;
}
