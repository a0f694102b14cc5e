/** The contract of object stores, run by each kind of them. */

import { afterAll, beforeEach, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FakeStore } from "../../src/archive/fake-store.ts";
import { openStore } from "../../src/archive/open-store.ts";
import { S3Store } from "../../src/archive/s3-store.ts";
import { S3Server } from "../support/s3-server.ts";
import { bytesOf, storeContract } from "../support/store-contract.ts";

const folder = mkdtempSync(join(tmpdir(), "ubiblk-store-"));
const server = new S3Server();
let placeCount = 0;

afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
  server[Symbol.dispose]();
});

beforeEach(() => {
  server.tells = "checksum";
});

storeContract("fake", async () => new FakeStore());

storeContract("filesystem", () =>
  openStore({ kind: "filesystem", path: join(folder, `${++placeCount}`), role: "write" }),
);

storeContract("s3", async () => new S3Store(server.description({ prefix: `p/${++placeCount}/` })));

storeContract("s3 with an MD5 as ETag, without checksums", async () => {
  server.tells = "md5";
  return new S3Store(server.description({ prefix: `p/${++placeCount}/` }));
});

test("s3: an object of which neither checksum nor MD5 is told may hold anything", async () => {
  server.tells = "nothing";
  await using store = new S3Store(server.description({ prefix: `p/${++placeCount}/` }));
  await store.put("data/1", bytesOf(100, 1));
  expect(await store.holds("data/1", bytesOf(100, 1))).toBe(false);
});

storeContract("s3 without a prefix", async () => {
  server.objects.clear();
  return new S3Store(server.description({ prefix: "" }));
});

storeContract("s3, the bucket in the host name, other characters in the prefix", () =>
  openStore(
    server.description({
      endpoint: `http://localhost:${server.port}`,
      prefix: `a b+c/(é)!'*%41&=/${++placeCount}/`,
    }),
  ),
);
