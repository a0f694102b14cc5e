import { expect, test } from "bun:test";
import { until } from "../../../tests/support/until.ts";
import { UbiError } from "../../errors.ts";
import { CredentialKeeper } from "./credential-keeper.ts";
import type { FoundCredentials } from "./credential-source.ts";
import type { Credentials } from "./credentials.ts";
import { CredentialUser } from "./shared-credentials.ts";

const HOUR_MS = 3_600_000;
const credentials = (n: number, expiresAtMs?: number): Credentials => ({
  accessKeyId: `id-${n}`,
  secretAccessKey: `key-${n}`,
  ...(expiresAtMs === undefined ? {} : { expiresAtMs }),
});

/** A keeper that begins with number 1 and reads what `read` gives; `reads` counts. */
function keeping(
  read: (nth: number) => Credentials | Promise<Credentials>,
  first: FoundCredentials = { credentials: credentials(1), canChange: true },
) {
  const seen = { reads: 0, atOnce: 0, atOnceMax: 0 };
  const source = {
    readMsMax: 1000,
    read: async () => {
      seen.reads += 1;
      seen.atOnce += 1;
      seen.atOnceMax = Math.max(seen.atOnceMax, seen.atOnce);
      try {
        await Bun.sleep(20);
        return { credentials: await read(seen.reads), canChange: true };
      } finally {
        seen.atOnce -= 1;
      }
    },
  };
  const keeper = new CredentialKeeper("s3://b/", first, source);
  return { keeper, seen, user: () => new CredentialUser(structuredClone(keeper.shared)) };
}

const idOf = async (user: CredentialUser, nowMs = 0) =>
  (await user.usable(nowMs, undefined)).credentials.accessKeyId;

test("many that are refused at once: the credentials are read once, and all get the new ones", async () => {
  const { keeper, seen, user } = keeping((n) => credentials(n + 1));
  using _ = keeper;
  const users = Array.from({ length: 20 }, user);
  const answers = await Promise.all(users.map((each) => each.renew(1, undefined)));
  expect(answers).toEqual(users.map(() => undefined));
  expect(await Promise.all(users.map((each) => idOf(each)))).toEqual(users.map(() => "id-2"));
  expect(seen.reads).toBe(1);
});

test("a request that was refused with old ones does not renew the new ones", async () => {
  const { keeper, seen, user } = keeping((n) => credentials(n + 1));
  using _ = keeper;
  await user().renew(1, undefined);
  expect(await user().renew(1, undefined)).toBeUndefined();
  expect(seen.reads).toBe(1);
  expect(await idOf(user())).toBe("id-2");
});

test("a service that refuses whatever it gets: the credentials are read once a second, no more", async () => {
  const { keeper, seen, user } = keeping((n) => credentials(n + 1));
  using _ = keeper;
  await user().renew(1, undefined);
  expect(await user().renew(2, undefined)).toContain("a moment ago");
  expect(await user().renew(2, undefined)).toContain("a moment ago");
  expect(seen.reads).toBe(1);
  await Bun.sleep(1100);
  expect(await user().renew(2, undefined)).toBeUndefined();
  expect(await idOf(user())).toBe("id-3");
});

test("the same once more: that is told, and they stay", async () => {
  const { keeper, user } = keeping(() => credentials(1));
  using _ = keeper;
  expect(await user().renew(1, undefined)).toContain("the same as before");
  expect(await idOf(user())).toBe("id-1");
});

test("a reading that fails: all that wait hear why; a moment later it is read again", async () => {
  const { keeper, seen, user } = keeping((n) => {
    if (n === 1) {
      throw new UbiError("E_SECRET_READ", 'secret "id": no writer');
    }
    return credentials(2);
  });
  using _ = keeper;
  const why = await Promise.all([user().renew(1, undefined), user().renew(1, undefined)]);
  expect(why).toEqual(['secret "id": no writer', 'secret "id": no writer']);
  expect(await user().renew(1, undefined)).toBe('secret "id": no writer');
  expect(seen.reads).toBe(1);
  await Bun.sleep(1100);
  expect(await user().renew(1, undefined)).toBeUndefined();
  expect(seen).toMatchObject({ reads: 2, atOnceMax: 1 });
});

test("what cannot change is not read again", async () => {
  const { keeper, seen, user } = keeping((n) => credentials(n), {
    credentials: credentials(1),
    canChange: false,
  });
  using _ = keeper;
  expect(await user().renew(1, undefined)).toContain("cannot change");
  expect(seen.reads).toBe(0);
});

test("a signal ends the wait, with its reason", async () => {
  const reading = Promise.withResolvers<Credentials>();
  const { keeper, user } = keeping(() => reading.promise);
  using _ = keeper;
  const controller = new AbortController();
  const waiting = user().renew(1, controller.signal);
  setTimeout(() => controller.abort(new Error("stop")), 30);
  await expect(waiting).rejects.toThrow("stop"); // though nothing has been read
  reading.resolve(credentials(2));
});

test("a keeper that does not answer is not waited for without end", async () => {
  const { keeper } = keeping((n) => credentials(n + 1));
  using _ = keeper;
  const control = new SharedArrayBuffer(keeper.shared.control.byteLength); // it looks at another one
  const alone = new CredentialUser({ ...keeper.shared, control, renewalMsMax: -4500 });
  expect(await alone.renew(1, undefined)).toContain("no answer within 500 ms");
});

test("a store that was closed gives no credentials, and whoever waits for others hears it at once", async () => {
  const reading = Promise.withResolvers<Credentials>(); // which never ends
  const { keeper, user } = keeping(() => reading.promise);
  const waiting = user().renew(1, undefined);
  await Bun.sleep(30);
  keeper[Symbol.dispose]();
  expect(await waiting).toBeString();
  expect(await user().renew(1, undefined)).toContain("the store was closed");
  await expect(user().usable(0, undefined)).rejects.toThrow("the store was closed");
});

test("minutes before their end new ones are read, and nobody waits", async () => {
  const first = { credentials: credentials(1, HOUR_MS), canChange: true };
  const { keeper, seen, user } = keeping(() => credentials(2, 2 * HOUR_MS), first);
  using _ = keeper;
  const one = user();
  expect(await idOf(one, HOUR_MS - 6 * 60_000)).toBe("id-1");
  await Bun.sleep(50);
  expect(seen.reads).toBe(0);
  expect(await idOf(one, HOUR_MS - 4 * 60_000)).toBe("id-1");
  await until("others are there", async () => (await idOf(one, HOUR_MS - 4 * 60_000)) === "id-2");
  expect(seen.reads).toBe(1);
});

test("behind their end new ones are waited for; where there are none, the old ones are used", async () => {
  const first = { credentials: credentials(1, HOUR_MS), canChange: true };
  const { keeper, seen, user } = keeping(
    (n) => credentials(n, n === 1 ? HOUR_MS : 2 * HOUR_MS),
    first,
  );
  using _ = keeper;
  const one = user();
  expect(await idOf(one, HOUR_MS + 1)).toBe("id-1");
  expect(await idOf(one, HOUR_MS + 1)).toBe("id-1");
  expect(seen.reads).toBe(1);
  await Bun.sleep(1100);
  expect(await idOf(user(), HOUR_MS + 1)).toBe("id-2");
});

test("old ones are wiped when new ones come", async () => {
  const { keeper, user } = keeping((n) => credentials(n + 1));
  using _ = keeper;
  const memory = () => Buffer.from(keeper.shared.current).toString("latin1");
  expect(memory()).toContain("key-1");
  await user().renew(1, undefined);
  expect(memory()).not.toContain("key-1");
  expect(memory()).toContain("key-2");
});
