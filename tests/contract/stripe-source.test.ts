/** One contract for all stripe sources, and what is particular to archives as sources. */
import { afterEach, beforeEach, describe } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openStore, type StoreSettings } from "../../src/archive/open-store.ts";
import { ResolvedSecrets } from "../../src/config/resolve-secrets.ts";
import { Secret } from "../../src/config/secret.ts";
import { openArchiveSource } from "../../src/sources/archive-source.ts";
import { FakeSource } from "../../src/sources/fake-source.ts";
import { openImage, openRawSource } from "../../src/sources/open-raw-source.ts";
import { WorkerSource } from "../../src/sources/worker-source.ts";
import { type ArchiveToBuild, buildArchive } from "../support/archive-builder.ts";
import { S3Server, TEST_KEY } from "../support/s3-server.ts";
import {
  CONTENT,
  REQUESTS_MAX,
  type SourceUnderTest,
  STRIPE_BYTES,
  STRIPE_SECTORS,
  testSourceContract,
} from "../support/source-contract.ts";

const KEK = new Uint8Array(32).fill(7);
const ARCHIVES: readonly (readonly [string, Partial<ArchiveToBuild>])[] = [
  ["plain", {}],
  ["compressed", { compression: { kind: "zstd", level: 1 } }],
  ["enciphered", { isEncrypted: true, kek: KEK }],
  [
    "enciphered and compressed",
    { isEncrypted: true, kek: KEK, compression: { kind: "zstd", level: 3 } },
  ],
];

let folder = "";

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ubiblk-sources-"));
});

afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

describe("a fake source", () => {
  testSourceContract(async () => {
    const source = new FakeSource({
      sectors: CONTENT.length / 512,
      stripeBytes: STRIPE_BYTES,
      requestsMax: REQUESTS_MAX,
      byteAt: (offset) => CONTENT[offset] ?? 0,
    });
    const submit = source.submit.bind(source);
    source.submit = () => {
      submit();
      while (source.underWay.length > 0) {
        source.finish(source.underWay.length - 1); // the last one first
      }
    };
    return { source, close: async () => {} };
  });
});

describe.each(["io_uring", "sync"] as const)("a raw image, %s", (ioEngine) => {
  testSourceContract(async () => {
    writeFileSync(join(folder, "image"), CONTENT);
    const file = openImage(join(folder, "image"));
    const { fd, blockBytes } = file;
    const image = { fd, blockBytes, sizeBytes: file.geometry.sizeBytes };
    const options = { stripeBytes: STRIPE_BYTES, requestsMax: REQUESTS_MAX, ioEngine };
    return {
      source: openRawSource(image, options),
      close: async () => file[Symbol.dispose](),
    };
  });
});

describe.each(ARCHIVES)("an archive in a folder, %s", (_, archive) => {
  testSourceContract(() => openFolderArchive(archive));
});

describe("an archive in a bucket", () => {
  testSourceContract(async () => {
    const server = new S3Server();
    await using store = await openStore(server.description({ prefix: "a/" }));
    await buildArchive(store, { stripeSectors: STRIPE_SECTORS, image: CONTENT, kek: KEK });
    const opened = await openArchive(s3Settings(server));
    return {
      source: opened.source,
      close: async () => {
        await opened.close();
        server[Symbol.dispose]();
      },
    };
  });
});

// --- internal ---

async function openFolderArchive(archive: Partial<ArchiveToBuild>): Promise<SourceUnderTest> {
  const path = join(folder, "archive");
  await using store = await openStore({ kind: "filesystem", path, role: "write" });
  await buildArchive(store, { stripeSectors: STRIPE_SECTORS, image: CONTENT, ...archive });
  const archiveKek = archive.kek === undefined ? {} : { archiveKek: { ref: "kek" } };
  return openArchive({ storage: "filesystem", path, autofetch: false, ...archiveKek });
}

async function openArchive(settings: StoreSettings): Promise<SourceUnderTest> {
  const opened = await openArchiveSource(settings, testSecrets());
  const onFailure = (message: string) => {
    throw new Error(message);
  };
  const workers = opened.start({ requestsMax: REQUESTS_MAX, onFailure });
  return {
    source: new WorkerSource(workers.description),
    close: async () => {
      await workers.stop();
      await opened[Symbol.asyncDispose]();
    },
  };
}

function s3Settings(server: S3Server): StoreSettings {
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
    connections: 4,
    connectTimeoutMs: 2_000,
    operationAttemptTimeoutMs: 5_000,
    maxAttempts: 1,
    rateLimitedRetry: { enabled: false, minDelayMs: 0, jitterMs: 0 },
    autofetch: false,
  };
}

function testSecrets(): ResolvedSecrets {
  const text = (value: string) => new TextEncoder().encode(value);
  return new ResolvedSecrets(
    new Map([
      ["kek", new Secret("kek", KEK.slice())],
      ["id", new Secret("id", text(TEST_KEY.accessKeyId))],
      ["secret", new Secret("secret", text(TEST_KEY.secretAccessKey))],
    ]),
  );
}
