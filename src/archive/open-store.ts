/** From the settings of a document to an open store. */
import { resolve } from "node:path";
import type { Static } from "@sinclair/typebox";
import { readBounded } from "../config/bounded-read.ts";
import type { ResolvedSecrets } from "../config/resolve-secrets.ts";
import type { ArchiveStoreSection, Settings } from "../config/schema.ts";
import { assert, assertNever, errorText, UbiError } from "../errors.ts";
import { CredentialKeeper } from "./credentials/credential-keeper.ts";
import { credentialsIn, namedIn, secretSource } from "./credentials/credential-source.ts";
import { providerChain } from "./credentials/provider-chain.ts";
import { FilesystemStore } from "./filesystem-store.ts";
import type { ObjectStore, StoreDescription, StoreRole } from "./object-store.ts";
import { normalPrefix } from "./s3-address.ts";
import type { S3StoreDescription } from "./s3-description.ts";
import { createSharedLimits } from "./s3-limits.ts";
import { S3Store } from "./s3-store.ts";

/** `[target]`, `[archive]`, or a `[stripe_source]` of type archive. */
export type StoreSettings = Settings<Static<typeof ArchiveStoreSection>>;

/** A store that can be opened in any thread. Disposing wipes its credentials. */
export class DescribedStore implements Disposable {
  /** Plain data, for all threads. */
  readonly description: StoreDescription;
  readonly #keeper: Disposable | undefined;

  constructor(description: StoreDescription, keeper: Disposable | undefined) {
    this.description = description;
    this.#keeper = keeper;
  }

  [Symbol.dispose](): void {
    this.#keeper?.[Symbol.dispose]();
  }
}

/**
 * In the main thread, which reads credentials anew when they are no longer good.
 * @param secrets those of the store's section must be among them; they are copied
 * @param signal ends the first reading of credentials, which has limits of its own as well
 * @throws UbiError E_STORE, E_SECRET, E_CREDENTIALS; the signal's reason
 */
export async function describeStore(
  settings: StoreSettings,
  secrets: ResolvedSecrets,
  role: StoreRole,
  signal: AbortSignal = NO_SIGNAL,
): Promise<DescribedStore> {
  switch (settings.storage) {
    case "filesystem": {
      const path = resolve(settings.path);
      return new DescribedStore({ kind: "filesystem", path, role }, undefined);
    }
    case "s3":
      return describeS3(settings, secrets, { role, signal });
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

export type S3Settings = Extract<StoreSettings, { storage: "s3" }>;

/** The region of the settings, else of the environment. */
export function regionOf({ region }: Pick<S3Settings, "region">): string {
  const { AWS_REGION, AWS_DEFAULT_REGION } = process.env;
  return region ?? (AWS_REGION || AWS_DEFAULT_REGION || DEFAULT_REGION);
}

// --- internal ---

const CA_FILE_BYTES_MAX = 4 * 2 ** 20;
const CA_FILE_TIMEOUT_MS = 10_000;
const DEFAULT_REGION = "us-east-1";
const NO_SIGNAL = new AbortController().signal;

async function describeS3(
  settings: S3Settings,
  secrets: ResolvedSecrets,
  { role, signal }: { readonly role: StoreRole; readonly signal: AbortSignal },
): Promise<DescribedStore> {
  const { rateLimitedRetry: limited, caFile } = settings;
  const region = regionOf(settings);
  const caCertificates = caFile === undefined ? undefined : await readCertificates(caFile);
  const keeper = await openKeeper(settings, secrets, { region, caCertificates, signal });
  const description: S3StoreDescription = {
    kind: "s3",
    role,
    bucket: settings.bucket,
    prefix: normalPrefix(settings.prefix),
    region,
    endpoint: settings.endpoint,
    isPathStyleForced: settings.forcePathStyle,
    credentials: keeper.shared,
    connections: settings.connections,
    connectTimeoutMs: settings.connectTimeoutMs,
    attemptTimeoutMs: settings.operationAttemptTimeoutMs,
    attemptsMax: settings.maxAttempts,
    rateLimitedRetry: limited.enabled
      ? { delayMsMin: limited.minDelayMs, jitterMs: limited.jitterMs }
      : undefined,
    caCertificates,
    storageClass: settings.storageClass,
    serverSideEncryption: settings.serverSideEncryption,
    checksums: settings.checksums,
    shared: createSharedLimits(settings.connections),
  };
  return new DescribedStore(description, keeper);
}

/** Reads the credentials for the first time, and knows where to read them again. */
async function openKeeper(
  settings: S3Settings,
  secrets: ResolvedSecrets,
  {
    signal,
    ...place
  }: Pick<S3StoreDescription, "region" | "caCertificates"> & { readonly signal: AbortSignal },
): Promise<CredentialKeeper> {
  const { credentials: providers, accessKeyId, secretAccessKey, sessionToken } = settings;
  const name = `s3://${settings.bucket}/${normalPrefix(settings.prefix)}`;
  if (providers !== undefined) {
    const isAllowed = secrets.isAllowed.bind(secrets);
    const source = providerChain({ providers, ...place, isAllowed });
    return new CredentialKeeper(name, await source.read(signal), source);
  }
  assert(accessKeyId !== undefined, "a document without credentials names an access key");
  assert(secretAccessKey !== undefined, "a document without credentials names a secret key");
  const references = { accessKeyId, secretAccessKey, sessionToken };
  const credentials = credentialsIn(secrets, references);
  const origin = secrets.originOf(namedIn(references));
  const source = origin === undefined ? undefined : secretSource(origin, references);
  return new CredentialKeeper(name, { credentials, canChange: origin?.canChange === true }, source);
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
