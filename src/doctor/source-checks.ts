/**
 * The stripe source: opened as a backend would where its secrets can be read, otherwise as far as it can be seen
 * without them.
 */

import { connect } from "node:net";
import { resolve } from "node:path";
import { MAPPING_KEY, METADATA_KEY } from "../archive/archive-manifest.ts";
import { FilesystemStore } from "../archive/filesystem-store.ts";
import type { DeviceConfig } from "../config/index.ts";
import { openDiskSource, openSource, type WorkerSourceSettings } from "../device/open-source.ts";
import { openLists } from "../device/prefetch-file.ts";
import { examineStripeImage } from "../device/stripe-image.ts";
import { DataFile } from "../disk/data-file.ts";
import { errorText } from "../errors.ts";
import { ARCHIVE_METADATA_BYTES_MAX, decodeArchiveMetadata } from "../formats/archive-metadata.ts";
import { countStripes, type Metadata, stripeBytes } from "../formats/metadata.ts";
import { SECTOR_BYTES } from "../formats/virtio-blk.ts";
import type { OpenedSource } from "../sources/opened-source.ts";
import type { CheckContext } from "./check-context.ts";
import type { Finding } from "./finding.ts";
import { operatingErrorText } from "./operating-error.ts";
import { examineService } from "./service-checks.ts";

export async function* examineSource(context: CheckContext): AsyncGenerator<Finding> {
  const config = await context.config();
  const settings = config.stripeSource;
  if (settings === undefined) {
    return;
  }
  const { metadata } = context;
  if (metadata !== undefined && countStripes(metadata.flags).unfetched === 0) {
    yield { check: "need", verdict: "ok", found: "all is fetched: a backend does not open it" };
    return;
  }
  yield* listFindings(settings, metadata);
  if (settings.type === "raw") {
    yield imageFinding(settings.imagePath, config, metadata);
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

const IMAGE_ADVICE = "mend image_path, or give access";

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

/** The files of `prefetch` and `record`. */
function* listFindings(
  { prefetch, record }: NonNullable<DeviceConfig["stripeSource"]>,
  metadata: Metadata | undefined,
): Generator<Finding> {
  const check = "lists";
  const paths = [prefetch, record].filter((path) => path !== undefined);
  if (paths.length === 0) {
    return;
  }
  try {
    openLists({ prefetch, record }, stripedDisk(metadata));
    yield { check, verdict: "ok", found: paths.join(", ") };
  } catch (error) {
    yield { check, verdict: "fail", found: told(error) };
  }
}

/** Whether a list can be read does not hang on the stripes of the disk. */
function stripedDisk(metadata: Metadata | undefined) {
  return metadata === undefined
    ? { stripeSectors: 1, stripeCount: 1 }
    : {
        stripeSectors: stripeBytes(metadata) / SECTOR_BYTES,
        stripeCount: metadata.stripeCount,
      };
}

function imageFinding(
  path: string,
  { device }: DeviceConfig,
  content: Metadata | undefined,
): Finding {
  const check = "image";
  try {
    using data = openToLook(device.dataPath, "data");
    using metadata = seenMetadata(device.metadataPath);
    const bytes = examineStripeImage(path, { data, metadata, content });
    return { check, verdict: "ok", found: `${path}, ${bytes} bytes` };
  } catch (error) {
    return { check, verdict: "fail", found: told(error), advice: IMAGE_ADVICE };
  }
}

function openToLook(path: string, what: string): DataFile {
  return DataFile.open({ path, what, isReadOnly: true, isUnlocked: true });
}

function seenMetadata(path: string | undefined): DataFile | undefined {
  try {
    return path === undefined ? undefined : openToLook(path, "metadata");
  } catch (error) {
    told(error);
    return undefined; // told by the subject "metadata_path"
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
  if (error instanceof DOMException && error.name === "TimeoutError") {
    return `no answer within ${OPEN_MS / 1000} s`;
  }
  return operatingErrorText(error);
}
