/** Archives opened as sources, for tests, with settings as documents give them. */
import type { StoreSettings } from "../../src/archive/open-store.ts";
import { ResolvedSecrets } from "../../src/config/resolve-secrets.ts";
import { Secret } from "../../src/config/secret.ts";
import { openArchiveSource } from "../../src/sources/archive-source.ts";
import type { OpenedSource } from "../../src/sources/opened-source.ts";
import type { SourceWorkers } from "../../src/sources/source-workers.ts";
import { WorkerSource } from "../../src/sources/worker-source.ts";
import { type S3Server, TEST_KEY } from "./s3-server.ts";

export const TEST_KEK = new Uint8Array(32).fill(7);

export function folderSettings(path: string, isKeyProtected: boolean): StoreSettings {
  const archiveKek = isKeyProtected ? { archiveKek: { ref: "kek" } } : {};
  return { storage: "filesystem", path, autofetch: false, ...archiveKek };
}

/** Of an archive under the prefix `a/`, with `TEST_KEK`. */
export function bucketSettings(server: S3Server, connections = 4): StoreSettings {
  return {
    storage: "s3",
    bucket: server.bucket,
    prefix: "a",
    region: TEST_KEY.region,
    accessKeyId: { ref: "id" },
    secretAccessKey: { ref: "secret" },
    archiveKek: { ref: "kek" },
    endpoint: `http://127.0.0.1:${server.port}`,
    forcePathStyle: false,
    checksums: "always",
    connections,
    connectTimeoutMs: 2_000,
    operationAttemptTimeoutMs: 20_000,
    maxAttempts: 1,
    rateLimitedRetry: { enabled: false, minDelayMs: 0, jitterMs: 0 },
    autofetch: false,
  };
}

export interface StartedSource extends AsyncDisposable {
  readonly source: WorkerSource;
  readonly workers: SourceWorkers;
  readonly close: () => Promise<void>;
}

export async function startArchive(
  settings: StoreSettings,
  requestsMax: number,
): Promise<StartedSource> {
  return startSource(await openArchiveSource(settings, testSecrets()), requestsMax);
}

export function startSource(opened: OpenedSource, requestsMax: number): StartedSource {
  const onFailure = (message: string) => {
    throw new Error(message);
  };
  const workers = opened.start({ requestsMax, onFailure });
  const close = async () => {
    await workers.stop();
    await opened[Symbol.asyncDispose]();
  };
  const source = new WorkerSource(workers.description);
  return { source, workers, close, [Symbol.asyncDispose]: close };
}

export function testSecrets(): ResolvedSecrets {
  const text = (value: string) => new TextEncoder().encode(value);
  return new ResolvedSecrets(
    new Map([
      ["kek", new Secret("kek", TEST_KEK.slice())],
      ["id", new Secret("id", text(TEST_KEY.accessKeyId))],
      ["secret", new Secret("secret", text(TEST_KEY.secretAccessKey))],
    ]),
  );
}
