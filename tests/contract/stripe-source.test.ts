/** One contract for all stripe sources. */
import { afterEach, beforeEach, describe } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openStore } from "../../src/archive/open-store.ts";
import { parseServerAddress } from "../../src/remote/server-address.ts";
import { ServedDisk } from "../../src/serve/served-disk.ts";
import { ServerStatistics } from "../../src/serve/server-statistics.ts";
import { StripeServer } from "../../src/serve/stripe-server.ts";
import { FakeSource } from "../../src/sources/fake-source.ts";
import { openImage, openRawSource } from "../../src/sources/open-raw-source.ts";
import { openRemoteSource } from "../../src/sources/remote-source.ts";
import { type ArchiveToBuild, buildArchive } from "../support/archive-builder.ts";
import {
  bucketSettings,
  folderSettings,
  startArchive,
  startSource,
  TEST_KEK,
  testSecrets,
} from "../support/archive-sources.ts";
import { S3Server } from "../support/s3-server.ts";
import {
  CONTENT,
  REQUESTS_MAX,
  type SourceUnderTest,
  STRIPE_BYTES,
  STRIPE_SECTORS,
  testSourceContract,
} from "../support/source-contract.ts";

const ARCHIVES: readonly (readonly [string, Partial<ArchiveToBuild>])[] = [
  ["plain", {}],
  ["compressed", { compression: { kind: "zstd", level: 1 } }],
  ["enciphered", { isEncrypted: true, kek: TEST_KEK }],
  [
    "enciphered and compressed",
    { isEncrypted: true, kek: TEST_KEK, compression: { kind: "zstd", level: 3 } },
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
    await buildArchive(store, { stripeSectors: STRIPE_SECTORS, image: CONTENT, kek: TEST_KEK });
    const opened = await startArchive(bucketSettings(server), REQUESTS_MAX);
    return {
      source: opened.source,
      close: async () => {
        await opened.close();
        server[Symbol.dispose]();
      },
    };
  });
});

describe("a stripe server", () => {
  testSourceContract(async () => {
    const path = await makeFolderArchive({});
    const settings = { type: "archive" as const, ...folderSettings(path, false) };
    const onFailure = (message: string) => {
      throw new Error(message);
    };
    const disk = await ServedDisk.openArchive(settings, testSecrets(), onFailure);
    const server = await StripeServer.start(disk, {
      addresses: [parseServerAddress("127.0.0.1:0")],
      unixRights: { mode: 0o600 },
      inherited: [],
      psk: undefined,
      limits: { handshakeMs: 5_000, answerMs: 5_000, idleMs: 5_000 },
      connectionsMax: 8,
      statistics: ServerStatistics.create(8),
    });
    const remote = await openRemoteSource(
      {
        address: server.places[0]?.name ?? "",
        connections: 3,
        connectTimeoutMs: 5_000,
        operationAttemptTimeoutMs: 5_000,
      },
      testSecrets(),
    );
    const opened = startSource(remote, REQUESTS_MAX);
    return {
      source: opened.source,
      close: async () => {
        await opened.close();
        await server.stop();
        await disk[Symbol.asyncDispose]();
      },
    };
  });
});

// --- internal ---

async function makeFolderArchive(archive: Partial<ArchiveToBuild>): Promise<string> {
  const path = join(folder, "archive");
  await using store = await openStore({ kind: "filesystem", path, role: "write" });
  await buildArchive(store, { stripeSectors: STRIPE_SECTORS, image: CONTENT, ...archive });
  return path;
}

async function openFolderArchive(archive: Partial<ArchiveToBuild>): Promise<SourceUnderTest> {
  const path = await makeFolderArchive(archive);
  return startArchive(folderSettings(path, archive.kek !== undefined), REQUESTS_MAX);
}
