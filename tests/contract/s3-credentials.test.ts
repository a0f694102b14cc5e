/** What the S3 store does when its credentials end, are rotated, or are refused for good. Waits are noted, not waited. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { CredentialKeeper } from "../../src/archive/credentials/credential-keeper.ts";
import type { Credentials } from "../../src/archive/credentials/credentials.ts";
import { CredentialUser } from "../../src/archive/credentials/shared-credentials.ts";
import { S3Store } from "../../src/archive/s3-store.ts";
import { S3Server, TEST_KEY } from "../support/s3-server.ts";
import { bytesOf, reasonOf } from "../support/store-contract.ts";

const KEY = "data/00";
const OBJECT = bytesOf(1000, 1);
const SECOND = { ...TEST_KEY, accessKeyId: "id-2", secretAccessKey: "key-2" };
const THIRD = { ...TEST_KEY, accessKeyId: "id-3", secretAccessKey: "key-3" };

let server: S3Server;
let waits: number[];
/** What the source holds. */
let held: Credentials;
let reads: number;
let keeper: CredentialKeeper;

beforeEach(() => {
  server = new S3Server();
  server.objects.set(`some/prefix/${KEY}`, OBJECT);
  waits = [];
  held = TEST_KEY;
  reads = 0;
  keeper = new CredentialKeeper(
    "test",
    { credentials: TEST_KEY, canChange: true },
    {
      readMsMax: 1000,
      read: async () => {
        reads += 1;
        return { credentials: held, canChange: true };
      },
    },
  );
});

afterEach(() => {
  keeper[Symbol.dispose]();
  server[Symbol.dispose]();
});

/** Instead of a wait, `meanwhile`. */
const open = (meanwhile: () => void = () => {}, connections = 4) =>
  new S3Store(server.description({ credentials: keeper.shared, connections }), {
    sleep: async (ms) => {
      waits.push(ms);
      meanwhile();
      await Bun.sleep(ms > 1000 ? 1100 : 0); // a keeper does not read twice within a second
    },
    random: () => 0.5,
  });
const get = (store: S3Store) => store.get(KEY, { lengthMax: OBJECT.length });

test.each([
  [400, "ExpiredToken"],
  [403, "InvalidAccessKeyId"],
  [403, "SignatureDoesNotMatch"],
])(
  "%d %s of credentials that were good: others are read and the request is repeated, at once",
  async (status, code) => {
    const store = open();
    await get(store);
    server.rotate(SECOND, { status, code });
    held = SECOND;
    expect(await get(store)).toEqual(OBJECT);
    expect({ reads, waits, refusals: server.refusals }).toEqual({
      reads: 1,
      waits: [],
      refusals: 1,
    });
  },
);

test("it is no attempt: one is enough", async () => {
  const store = new S3Store(server.description({ credentials: keeper.shared, attemptsMax: 1 }));
  await get(store);
  server.rotate(SECOND);
  held = SECOND;
  await store.put(KEY, bytesOf(10, 2));
  expect(server.objects.get(`some/prefix/${KEY}`)).toEqual(bytesOf(10, 2));
});

test("every kind of request survives, a HEAD without a reason as well", async () => {
  const store = open();
  for (const [i, request] of [
    () => store.sizeOf(KEY),
    () => store.holds(KEY, OBJECT),
    () => store.putNew("new", OBJECT),
    () => Array.fromAsync(store.list("data/")),
    () => store.remove("new"),
  ].entries()) {
    const next = { ...TEST_KEY, accessKeyId: `next-${i}` };
    server.rotate(next);
    held = next;
    await request();
  }
  expect(reads).toBe(5);
});

test("a HEAD that is refused for another reason says which, and nothing is read again", async () => {
  const store = open();
  await get(store);
  server.fault = () => ({ status: 403, code: "AccessDenied" });
  expect(String(await reasonOf(store.sizeOf(KEY)))).toContain(
    "HeadObject failed for key 'some/prefix/data/00': the service refused (status=403) code=AccessDenied",
  );
  expect(reads).toBe(0);
});

test("a HEAD that is refused while others are read already is repeated", async () => {
  const store = open();
  await get(store);
  server.rotate(SECOND);
  held = SECOND;
  server.onRefusal = () => new CredentialUser(keeper.shared).renew(1, undefined);
  expect(await store.sizeOf(KEY)).toBe(OBJECT.length);
  expect({ reads, refusals: server.refusals }).toEqual({ reads: 1, refusals: 1 });
});

test("a HEAD that is refused although the object can be read stays refused", async () => {
  const store = open();
  server.fault = (what) => (what.startsWith("HEAD") ? { status: 403 } : undefined);
  expect(String(await reasonOf(store.sizeOf(KEY)))).toContain("(status=403)");
});

test("many requests of several stores at once: the credentials are read once", async () => {
  const stores = [open(() => {}, 16), open(() => {}, 16)];
  await get(stores[0] ?? open());
  server.rotate(SECOND);
  held = SECOND;
  const all = Array.from({ length: 20 }, (_, i) => get(stores[i % 2] ?? open()));
  expect(await Promise.all(all)).toEqual(all.map(() => OBJECT));
  expect(reads).toBe(1);
});

test("what writes the new ones comes late: they are asked for again", async () => {
  const store = open(() => {
    held = SECOND;
  });
  await get(store);
  server.rotate(SECOND);
  expect(await get(store)).toEqual(OBJECT);
  expect({ reads, waits }).toEqual({ reads: 2, waits: [2000] });
});

test("a pair that was read in the middle of a rotation is read again", async () => {
  const store = open(() => {
    held = SECOND;
  });
  await get(store);
  server.rotate(SECOND, { status: 403, code: "InvalidAccessKeyId" });
  held = { ...SECOND, secretAccessKey: TEST_KEY.secretAccessKey };
  expect(await get(store)).toEqual(OBJECT);
  expect(reads).toBe(2);
});

test("those that are read are refused as well: the request ends, and says so", async () => {
  const store = open();
  await get(store);
  server.rotate(THIRD);
  held = SECOND;
  const text = String(await reasonOf(get(store)));
  expect(text).toContain("GetObject failed");
  expect(text).toContain("there are no other credentials: they were read again and are the same");
  expect(waits).toEqual([2000, 5000]);
  expect(server.refusals).toBeLessThan(5);
});

test("new ones each time, and all are refused: that has an end", async () => {
  const store = open();
  await get(store);
  server.rotate(THIRD);
  let nth = 0;
  const turning = new S3Store(server.description({ credentials: keeper.shared }), {
    sleep: async () => {
      held = { ...SECOND, accessKeyId: `turn-${++nth}` };
      await Bun.sleep(1100);
    },
  });
  held = SECOND;
  const text = String(await reasonOf(get(turning)));
  expect(text).toContain("they were read again, and those are refused as well");
  expect(reads).toBe(3);
});

test("keys that were never good are wrong, not old: nothing is read again", async () => {
  server.key = SECOND;
  const text = String(await reasonOf(get(open())));
  expect(text).toContain("code=InvalidAccessKeyId");
  expect(text).toContain("check access_key_id");
  expect(reads).toBe(0);
});

test("AccessDenied is no reason to read them again", async () => {
  const store = open();
  await get(store);
  server.fault = () => ({ status: 403, code: "AccessDenied" });
  await reasonOf(get(store));
  expect(reads).toBe(0);
});

test("the signal ends the wait for others, with its reason", async () => {
  const controller = new AbortController();
  using slow = new CredentialKeeper(
    "test",
    { credentials: TEST_KEY, canChange: true },
    {
      readMsMax: 10_000,
      read: async () => {
        await Bun.sleep(5_000);
        return { credentials: SECOND, canChange: true };
      },
    },
  );
  const store = new S3Store(server.description({ credentials: slow.shared }));
  server.rotate(SECOND);
  setTimeout(() => controller.abort(new Error("stop")), 50);
  const work = store.get(KEY, { lengthMax: 1000, signal: controller.signal });
  expect(String(await reasonOf(work))).toBe("Error: stop");
});

test("a service that sends back what it got, and had got before, shows no secret in our messages", async () => {
  const [first, second] = [
    { ...TEST_KEY, sessionToken: "the-first-token" },
    { ...SECOND, sessionToken: "the-second-token" },
  ];
  using own = new CredentialKeeper(
    "test",
    { credentials: first, canChange: true },
    {
      readMsMax: 1000,
      read: async () => ({ credentials: second, canChange: true }),
    },
  );
  const sleep = async () => {};
  const store = new S3Store(server.description({ credentials: own.shared }), { sleep });
  server.sessionToken = first.sessionToken;
  await get(store);
  server.rotate(SECOND);
  server.sessionToken = second.sessionToken;
  const text = [first, second].map((each) => `${each.secretAccessKey} ${each.sessionToken}`).join();
  const body = `<Error><Code>InternalError</Code><Message>${text}</Message></Error>`;
  server.fault = () => ({ status: 400, body });
  const error = await reasonOf(store.put("data/02", OBJECT));
  expect(Bun.inspect(error)).toContain("(secret)");
  expect(Bun.inspect(error)).not.toMatch(/first-token|second-token|test\/secret|key-2/);
});

test("a service that sends back what it got several rotations ago, or half of it, shows no secret", async () => {
  const store = open();
  const tokens = ["oldest-token", "oldest-token-and-more", "third-token", "last-token"];
  for (const [n, sessionToken] of tokens.entries()) {
    const key = { ...TEST_KEY, accessKeyId: `id-${n}`, secretAccessKey: `key-${n}` };
    held = { ...key, sessionToken };
    server.rotate(key);
    server.sessionToken = sessionToken;
    await get(store);
    await Bun.sleep(1100); // a keeper does not read twice within a second
  }
  const body = `<Error><Code>InternalError</Code><Message>${tokens.join(" ")}</Message></Error>`;
  server.fault = () => ({ status: 400, body });
  const text = String(await reasonOf(store.put("data/02", OBJECT)));
  expect(text).toContain("(secret) (secret) (secret) (secret)");
  expect(text).not.toMatch(/oldest|more|third|last/);
}, 20_000);
