/** The contract of stores, and what only a real service shows, against OpenStack Swift. */
import { afterAll, beforeAll, expect } from "bun:test";
import { S3Store } from "../../src/archive/s3-store.ts";
import { fixedCredentials, type TestCredentials } from "../support/fixed-credentials.ts";
import { skipUnless } from "../support/requires.ts";
import { bytesOf, listed, reasonOf, storeContract } from "../support/store-contract.ts";
import { isSwiftInstalled, SWIFT_CREDENTIALS, Swift } from "../support/swift.ts";

const swiftTest = skipUnless("python3-swift is not installed", isSwiftInstalled());
let swift: Swift;
let bucketCount = 0;

beforeAll(async () => {
  if (isSwiftInstalled()) {
    swift = await Swift.start();
  }
}, 90_000);

afterAll(async () => {
  await swift?.[Symbol.asyncDispose]();
});

const signedBy = (changes: Partial<TestCredentials>) => ({
  credentials: fixedCredentials({ ...SWIFT_CREDENTIALS, ...changes }),
});
const description = () => swift.description(`bucket-${++bucketCount}`);

storeContract("Swift", async () => new S3Store(await description()), swiftTest);

swiftTest(
  "Swift: prefixes keep archives in one bucket apart, whatever characters they have",
  async () => {
    const bucket = await description();
    const one = new S3Store({ ...bucket, prefix: "a b+c/(é)!'*%41&=/" });
    const other = new S3Store({ ...bucket, prefix: "a b+c/" });
    await one.put("data/1", bytesOf(10, 1));
    await other.put("data/1", bytesOf(20, 2));
    expect(await listed(one, "data/")).toEqual([["data/1", 10]]);
    expect(await other.get("data/1", { lengthMax: 20 })).toEqual(bytesOf(20, 2));
    expect(await one.get("data/1", { lengthMax: 20 })).toEqual(bytesOf(10, 1));
  },
);

swiftTest(
  "Swift: a list of more than one page is whole",
  async () => {
    const store = new S3Store(await description());
    const keys = Array.from({ length: 1100 }, (_, i) => `data/${10_000 + i}`);
    await Promise.all(keys.map((key) => store.put(key, bytesOf(1, 1))));
    expect((await listed(store, "data/")).map(([key]) => key)).toEqual(keys);
  },
  120_000,
);

swiftTest("Swift: a wrong secret, bucket or region is an error that says so, at once", async () => {
  const right = await description();
  const message = async (changes: object) => {
    const store = new S3Store({ ...right, ...changes });
    return String(await reasonOf(store.get("key", { lengthMax: 10 })));
  };
  expect(await message(signedBy({ secretAccessKey: "wrong" }))).toContain(
    "code=SignatureDoesNotMatch",
  );
  expect(await message(signedBy({ accessKeyId: "nobody" }))).toContain("status=403");
  expect(await message({ bucket: "there-is-none" })).toContain("code=NoSuchBucket");
  expect(await message({ region: "elsewhere-1" })).toContain('set region = "us-east-1"');
});
