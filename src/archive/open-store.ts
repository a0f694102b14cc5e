/** From the settings of a document to an open store. */
import { resolve } from "node:path";
import type { Static } from "@sinclair/typebox";
import { readBounded } from "../config/bounded-read.ts";
import type { ResolvedSecrets, SecretReference } from "../config/resolve-secrets.ts";
import type { ArchiveStoreSection, Settings } from "../config/schema.ts";
import { assertNever, errorText, UbiError } from "../errors.ts";
import { FilesystemStore } from "./filesystem-store.ts";
import type { ObjectStore, StoreDescription, StoreRole } from "./object-store.ts";
import { normalPrefix } from "./s3-address.ts";
import type { S3StoreDescription } from "./s3-description.ts";
import { createSharedLimits } from "./s3-limits.ts";
import { S3Store } from "./s3-store.ts";

/** `[target]`, `[archive]`, or a `[stripe_source]` of type archive. */
export type StoreSettings = Settings<Static<typeof ArchiveStoreSection>>;

/**
 * @param secrets those of the store's section must be among them; they are copied
 * @throws UbiError E_STORE
 */
export async function describeStore(
  settings: StoreSettings,
  secrets: ResolvedSecrets,
  role: StoreRole,
): Promise<StoreDescription> {
  switch (settings.storage) {
    case "filesystem":
      return { kind: "filesystem", path: resolve(settings.path), role };
    case "s3":
      return describeS3(settings, secrets, role);
    default:
      return assertNever(settings);
  }
}

/**
 * Opens a store in this thread. For writing a folder is made when it is missing; a reader makes nothing.
 * @throws UbiError E_STORE
 */
export async function openStore(description: StoreDescription): Promise<ObjectStore> {
  switch (description.kind) {
    case "filesystem":
      return FilesystemStore.open(description);
    case "s3":
      return new S3Store(description);
    default:
      return assertNever(description);
  }
}

// --- internal ---

const CA_FILE_BYTES_MAX = 4 * 2 ** 20;
const CA_FILE_TIMEOUT_MS = 10_000;
const DEFAULT_REGION = "us-east-1";

async function describeS3(
  settings: Extract<StoreSettings, { storage: "s3" }>,
  secrets: ResolvedSecrets,
  role: StoreRole,
): Promise<S3StoreDescription> {
  const text = (reference: SecretReference) =>
    new TextDecoder("utf-8", { fatal: true }).decode(secrets.get(reference).bytes);
  const { rateLimitedRetry: limited, sessionToken, caFile } = settings;
  const { AWS_REGION, AWS_DEFAULT_REGION } = process.env;
  return {
    kind: "s3",
    role,
    bucket: settings.bucket,
    prefix: normalPrefix(settings.prefix),
    region: settings.region ?? (AWS_REGION || AWS_DEFAULT_REGION || DEFAULT_REGION),
    endpoint: settings.endpoint,
    isPathStyleForced: settings.forcePathStyle,
    accessKeyId: text(settings.accessKeyId),
    secretAccessKey: text(settings.secretAccessKey),
    sessionToken: sessionToken === undefined ? undefined : text(sessionToken),
    connections: settings.connections,
    connectTimeoutMs: settings.connectTimeoutMs,
    attemptTimeoutMs: settings.operationAttemptTimeoutMs,
    attemptsMax: settings.maxAttempts,
    rateLimitedRetry: limited.enabled
      ? { delayMsMin: limited.minDelayMs, jitterMs: limited.jitterMs }
      : undefined,
    caCertificates: caFile === undefined ? undefined : await readCertificates(caFile),
    storageClass: settings.storageClass,
    serverSideEncryption: settings.serverSideEncryption,
    checksums: settings.checksums,
    shared: createSharedLimits(settings.connections),
  };
}

async function readCertificates(path: string): Promise<string> {
  try {
    const bytes = await readBounded(path, {
      bytesMax: CA_FILE_BYTES_MAX,
      timeoutMs: CA_FILE_TIMEOUT_MS,
      what: "ca_file",
    });
    const text = new TextDecoder().decode(bytes);
    if (bytes.length > CA_FILE_BYTES_MAX || !text.includes("-----BEGIN CERTIFICATE-----")) {
      throw new UbiError("E_STORE", `ca_file ${path} has no certificates in PEM form`);
    }
    return text;
  } catch (error) {
    if (error instanceof UbiError) {
      throw error;
    }
    throw new UbiError("E_STORE", `cannot read ca_file ${path}: ${errorText(error)}`);
  }
}
