/** What the S3 store does when a service fails, stalls, lies or refuses. Waits are noted, not waited. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import type { S3StoreDescription } from "../../src/archive/s3-description.ts";
import { S3Store } from "../../src/archive/s3-store.ts";
import { fixedCredentials, type TestCredentials } from "../support/fixed-credentials.ts";
import { type Fault, S3Server, TEST_KEY } from "../support/s3-server.ts";
import { bytesOf, codeOf, listed, reasonOf } from "../support/store-contract.ts";

const KEY = "data/00";
const OBJECT = bytesOf(100_000, 1);
const PUT = `PUT some/prefix/${KEY}`;
const GET = `GET some/prefix/${KEY}`;

let server: S3Server;
let waits: number[];

beforeEach(() => {
  server = new S3Server();
  server.objects.set(`some/prefix/${KEY}`, OBJECT);
  waits = [];
});

afterEach(() => server[Symbol.dispose]());

/** The dice always fall in the middle. */
const open = (changes: Partial<S3StoreDescription> = {}, stallMs = 10_000) =>
  new S3Store(server.description(changes), {
    sleep: async (ms) => void waits.push(ms),
    random: () => 0.5,
    stallMs,
  });
const signedBy = (changes: Partial<TestCredentials>) => ({
  credentials: fixedCredentials({ ...TEST_KEY, ...changes }),
});
const get = (store: S3Store, lengthMax = OBJECT.length) => store.get(KEY, { lengthMax });
const attempts = () => server.seen.length;
const messageOf = async (promise: Promise<unknown>) => String(await reasonOf(promise));
/** The first `count` answers to each request are this fault. */
const failFirst = (count: number, fault: Fault) => {
  server.fault = (_, nth) => (nth <= count ? fault : undefined);
};

test("two failures of a put, then success: it is stored after growing waits", async () => {
  failFirst(2, { status: 500 });
  await open().put(KEY, bytesOf(10, 3));
  expect(server.objects.get(`some/prefix/${KEY}`)).toEqual(bytesOf(10, 3));
  expect(server.seen.map(({ what }) => what)).toEqual([PUT, PUT, PUT]);
  expect(waits).toEqual([500, 1000]);
});

test("failures without end: the attempts of the settings, then an error that tells all", async () => {
  failFirst(99, { status: 503, code: "SlowDown" });
  expect(await messageOf(open({ attemptsMax: 4 }).put(KEY, OBJECT))).toBe(
    `UbiError: PutObject failed for key 'some/prefix/${KEY}': the service refused (status=503) ` +
      'code=SlowDown message="as the test \\"wants\\" it"; gave up after 4 attempts',
  );
  expect(attempts()).toBe(4);
});

test("a refusal is final at once and says what to check", async () => {
  failFirst(99, { status: 403, code: "AccessDenied" });
  const message = await messageOf(open().put(KEY, OBJECT));
  expect(message).toContain("(status=403) code=AccessDenied");
  expect(message).toContain("check the credentials");
  expect(attempts()).toBe(1);
});

test("a 429 without advice is final", async () => {
  failFirst(99, { status: 429 });
  expect(await codeOf(open().put(KEY, OBJECT))).toBe("E_STORE");
  expect(attempts()).toBe(1);
});

test("a 429 with Retry-After is tried again after that time", async () => {
  failFirst(1, { status: 429, headers: { "retry-after": "7" } });
  await open().put(KEY, OBJECT);
  expect(waits).toEqual([7000]);
});

test("rate_limited_retry: a 429 is tried again after the configured time", async () => {
  failFirst(99, { status: 429 });
  const store = open({ rateLimitedRetry: { delayMsMin: 3000, jitterMs: 100 } });
  expect(await codeOf(store.put(KEY, OBJECT))).toBe("E_STORE");
  expect(waits).toEqual([3050, 3050]);
});

test("an error page that is no XML counts by its status", async () => {
  failFirst(1, { status: 502, body: "<html><body>Bad <b>gateway" });
  expect(await get(open())).toEqual(OBJECT);
});

test("an error page without end is read to its limit only", async () => {
  failFirst(99, { status: 400, body: "<".repeat(30_000_000) });
  expect(await messageOf(get(open()))).toContain("(status=400)");
});

test.each(["cut", "checksum", "stall"] as const)(
  "a body with the fault %j is fetched again as a whole",
  async (spoil) => {
    failFirst(2, { spoil });
    expect(await get(open({}, 1000))).toEqual(OBJECT);
    expect(server.seen.map(({ what }) => what)).toEqual([GET, GET, GET]);
    expect(waits).toEqual([500, 1000]);
  },
);

test.each([
  ["checksum", "crc32 of what came is wrong"],
  ["stall", "stalled for 300 ms after 50000 bytes"],
] as const)("a body that always has the fault %j is an error: %s", async (spoil, text) => {
  failFirst(99, { spoil });
  expect(await messageOf(get(open({}, 300)))).toContain(text);
});

test("a body without end is refused at its limit, and not asked for again", async () => {
  failFirst(99, { spoil: "endless" });
  expect(await messageOf(get(open()))).toContain("more than 100000 bytes were sent");
  expect(attempts()).toBe(1);
});

test("an answer that does not begin in time is given up and asked for again", async () => {
  failFirst(1, { delayMs: 10_000 });
  expect(await get(open({ attemptTimeoutMs: 1500 }))).toEqual(OBJECT);
  expect(attempts()).toBe(2);
});

test("a redirect is not followed, and the region is told", async () => {
  const headers = { location: "http://127.0.0.1:9/", "x-amz-bucket-region": "eu-7" };
  failFirst(99, { status: 307, headers });
  const message = await messageOf(get(open()));
  expect(message).toContain("the service points elsewhere (status=307)");
  expect(message).toContain('set region = "eu-7"');
  expect(attempts()).toBe(1);
});

test("a part of an object is not taken for the object", async () => {
  failFirst(99, { status: 206, body: "part" });
  expect(await messageOf(get(open()))).toContain("an unexpected answer (status=206)");
});

test("a bucket that is not there is an error, not a missing object", async () => {
  const message = await messageOf(get(open({ bucket: "another-bucket" })));
  expect(message).toContain("code=NoSuchBucket");
});

test("the signal ends a request under way at once, with its reason", async () => {
  failFirst(99, { delayMs: 15_000 });
  const controller = new AbortController();
  const startMs = performance.now();
  setTimeout(() => controller.abort(new Error("stop")), 50);
  const store = open({ attemptTimeoutMs: 30_000 });
  const work = store.get(KEY, { lengthMax: 1, signal: controller.signal });
  expect(await messageOf(work)).toBe("Error: stop");
  expect(performance.now() - startMs).toBeLessThan(5000);
});

test("the signal ends the wait before a retry at once, with its reason", async () => {
  failFirst(99, { status: 503, headers: { "retry-after": "30" } });
  const controller = new AbortController();
  const startMs = performance.now();
  setTimeout(() => controller.abort(new Error("stop")), 100);
  const store = new S3Store(server.description());
  const work = store.put(KEY, OBJECT, { signal: controller.signal });
  expect(await messageOf(work)).toBe("Error: stop");
  expect(performance.now() - startMs).toBeLessThan(5000);
});

test("no more requests are under way than connections are allowed, for all stores together", async () => {
  server.fault = () => ({ delayMs: 10 });
  const description = server.description({ connections: 3 });
  const stores = [new S3Store(description), new S3Store(description)];
  await Promise.all(stores.flatMap((store) => Array.from({ length: 12 }, () => get(store))));
  expect(server.concurrencyMax).toBe(3);
});

test("many failures use up the retry quota of all stores; then a failure is final at once", async () => {
  failFirst(Number.POSITIVE_INFINITY, { status: 500 });
  const description = server.description({ attemptsMax: 30 });
  const sleep = async () => {};
  const [first, second] = [
    new S3Store(description, { sleep }),
    new S3Store(description, { sleep }),
  ];
  await reasonOf(get(first));
  expect(attempts()).toBe(30);
  expect(await messageOf(get(second))).toContain("no more retries, since too many requests failed");
  expect(attempts()).toBe(30 + 22); // 50 retries in all: 29, then 21 behind a first attempt
});

test("the session token is sent and signed", async () => {
  server.sessionToken = "a/token+with=signs";
  expect(await get(open())).toEqual(OBJECT);
  expect(await messageOf(get(open(signedBy({ sessionToken: "old" }))))).toContain(
    "code=InvalidToken",
  );
});

test("a put says what S3 wants to know of it", async () => {
  await open({ storageClass: "STANDARD_IA", serverSideEncryption: "AES256" }).put(KEY, OBJECT);
  const [request] = server.seen;
  expect(request?.target).toEndWith("?x-id=PutObject");
  expect(request?.headers.get("content-type")).toBe("application/octet-stream");
  expect(request?.headers.get("x-amz-sdk-checksum-algorithm")).toBe("CRC32");
  expect(request?.headers.get("x-amz-checksum-crc32")).toMatch(/^[\w+/]{6}==$/);
  expect(request?.headers.get("x-amz-storage-class")).toBe("STANDARD_IA");
  expect(request?.headers.get("x-amz-server-side-encryption")).toBe("AES256");
});

test("checksums when required: none is sent or asked for", async () => {
  const store = open({ checksums: "when_required" });
  await store.put(KEY, OBJECT);
  await get(store);
  const names = server.seen.flatMap(({ headers }) => [...headers.keys()]);
  expect(names.filter((name) => name.includes("checksum"))).toEqual([]);
});

test.each([
  ["<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>", "not a list"],
  ["<ListBucketResult><Contents><Key>a</Key></Contents></ListBucketResult>", "not a list"],
  ["<Other/>", "not a list"],
  ["garbage", "not a list"],
  [
    "<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>a" +
      "</NextContinuationToken></ListBucketResult>",
    "the list has no end",
  ],
])("the list %j is an error", async (body, text) => {
  failFirst(99, { status: 200, body });
  expect(await messageOf(listed(open(), "data/"))).toContain(text);
});

test("keys of a list that are not ours are left out", async () => {
  for (const key of [
    "some/prefix/a b",
    "some/prefix/../up",
    "elsewhere",
    "some/prefix/x//y",
    "some/prefix/a\u0001\u0000\n\u007fb",
  ]) {
    server.objects.set(key, OBJECT);
  }
  expect(await listed(open(), "")).toEqual([[KEY, OBJECT.length]]);
});

test("a list with references to control characters, and with bytes that are no text, is read", async () => {
  const entry = (key: string) => `<Contents><Key>some/prefix/${key}</Key><Size>3</Size></Contents>`;
  const foreign = ["&#x0;", "&#1;", "&#xD800;", "\u0000", "\uFFFE", "&#xFFFFFF;", "&nonsense;"];
  const entries = [...foreign, "data/5"].map(entry).join("");
  const body = `<ListBucketResult><IsTruncated>false</IsTruncated>${entries}</ListBucketResult>`;
  server.fault = () => ({ status: 200, body });
  expect(await listed(open(), "")).toEqual([["data/5", 3]]);
});

test("no message shows the secret key or the token", async () => {
  server.sessionToken = "the-token";
  const wrong = open(signedBy({ secretAccessKey: "wrong-secret", sessionToken: "the-token" }));
  const error = await reasonOf(get(wrong));
  expect(String(error)).toContain("code=SignatureDoesNotMatch");
  expect(Bun.inspect(error)).not.toMatch(/wrong-secret|the-token/);
  expect(Bun.inspect(wrong)).not.toMatch(/wrong-secret|the-token/);
});

test("a service that sends back what it got shows no secret in our messages", async () => {
  const token = "the+token/of=the<session>&more";
  server.sessionToken = token;
  server.fault = () => {
    const headers = server.seen.at(-1)?.headers ?? new Headers();
    const text = [...headers.values(), encodeURIComponent(token), TEST_KEY.secretAccessKey].join(
      " ",
    );
    const escaped = text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
    const body = `<Error><Code>${escaped}</Code><Message>${escaped}</Message></Error>`;
    return { status: 400, body };
  };
  const error = await reasonOf(get(open()));
  const shown = Bun.inspect(error);
  expect(shown).toContain("message=");
  expect(shown).toContain("(secret)");
  expect(shown).not.toContain("the+token");
  expect(shown).not.toContain("the%2Btoken");
  expect(shown).not.toContain(TEST_KEY.secretAccessKey);
  expect(shown).not.toMatch(/Signature=[0-9a-f]/);
});

test.each([{}, { NO_PROXY: "a" }, { no_proxy: "b" }, { NO_PROXY: "a", no_proxy: "b" }])(
  "an http endpoint is talked to directly, whatever proxy the environment names (exempt: %j)",
  async (exempt) => {
    const variables = { HTTP_PROXY: "http://127.0.0.1:9", ...exempt };
    const before = ["HTTP_PROXY", "NO_PROXY", "no_proxy"].map((name) => [name, process.env[name]]);
    Object.assign(process.env, variables);
    try {
      expect(await get(open())).toEqual(OBJECT);
    } finally {
      for (const [name = "", value] of before) {
        restore(name, value);
      }
    }
  },
);

test("signatures: the server of these tests refuses a wrong one", async () => {
  const changes = [
    signedBy({ secretAccessKey: `${TEST_KEY.secretAccessKey}x` }),
    signedBy({ accessKeyId: "somebody" }),
    { region: "another-1" },
  ];
  const messages = await Promise.all(changes.map((change) => messageOf(get(open(change)))));
  expect(messages[0]).toContain("code=SignatureDoesNotMatch");
  expect(messages[1]).toContain("code=InvalidAccessKeyId");
  expect(messages[2]).toContain("code=AuthorizationHeaderMalformed");
});

function restore(name: string, value: string | undefined): void {
  if (value === undefined) {
    delete process.env[name];
  } else {
    process.env[name] = value;
  }
}
