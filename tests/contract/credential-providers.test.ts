/** The places where a machine offers credentials, asked as they are, on loopback: good answers, none, and hostile ones. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import type { ProviderSurroundings } from "../../src/archive/credentials/provider.ts";
import { askAll } from "../../src/archive/credentials/provider-chain.ts";
import { CREDENTIAL_PROVIDERS, type CredentialProvider } from "../../src/config/schema.ts";
import { ConfigFolder } from "../support/config-folder.ts";
import { CONTAINER_TOKEN, MetadataServer, WEB_IDENTITY } from "../support/metadata-server.ts";
import { reasonOf } from "../support/store-contract.ts";

const CREDENTIALS = {
  accessKeyId: "ASIA1",
  secretAccessKey: "the/secret",
  sessionToken: "the-token",
};
const ROLES = "GET /latest/meta-data/iam/security-credentials/";
const KEYS = "aws_access_key_id = AKIA\naws_secret_access_key = profile-secret\n";

let server: MetadataServer;
let folder: ConfigFolder;

beforeEach(() => {
  server = new MetadataServer(CREDENTIALS);
  folder = new ConfigFolder({
    "web-identity": `${WEB_IDENTITY}\n`,
    "container-token": `${CONTAINER_TOKEN}\n`,
    "bad-identity": "another.identity",
    credentials: `[default]\n${KEYS}[other]\n${KEYS.replace("AKIA", "AKIB")}[sso]\nsso_session = x\n`,
  });
});

afterEach(() => {
  server[Symbol.dispose]();
  folder[Symbol.dispose]();
});

type Variables = Readonly<Record<string, string>>;

const instance = (): Variables => ({ AWS_EC2_METADATA_SERVICE_ENDPOINT: server.url });
const container = (): Variables => ({
  AWS_CONTAINER_CREDENTIALS_FULL_URI: `${server.url}/container`,
  AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE: folder.file("container-token"),
});
const webIdentity = (): Variables => ({
  AWS_WEB_IDENTITY_TOKEN_FILE: folder.file("web-identity"),
  AWS_ROLE_ARN: "arn:aws:iam::1:role/r",
  AWS_ENDPOINT_URL_STS: `${server.url}/sts`,
});
const profile = (): Variables => ({ AWS_SHARED_CREDENTIALS_FILE: folder.file("credentials") });

const ask = (
  providers: readonly CredentialProvider[],
  variables: Variables,
  changes: Partial<ProviderSurroundings> = {},
) =>
  askAll(providers, {
    variable: (name) => variables[name],
    hide: () => {},
    homeFolder: folder.file("home"),
    region: "eu-central-1",
    caCertificates: undefined,
    mayReadEnvironment: true,
    mayConnectUnencrypted: false,
    files: { mayReadRegularFiles: true, warn: () => {} },
    signal: new AbortController().signal,
    ...changes,
  });
const reason = async (...parameters: Parameters<typeof ask>) => {
  const error = String(await reasonOf(ask(...parameters)));
  expect(error).not.toMatch(/the\/secret|the-token|profile-secret/);
  return error;
};

test.each([
  ["instance", instance],
  ["container", container],
  ["web_identity", webIdentity],
] as const)("%s gives credentials with an end", async (provider, variables) => {
  const { credentials, canChange } = await ask([provider], variables());
  expect(credentials).toEqual({
    ...CREDENTIALS,
    expiresAtMs: Date.parse(server.expiration ?? ""),
  });
  expect(canChange).toBe(true);
});

test("an instance is asked in a session", async () => {
  await ask(["instance"], instance());
  expect(server.seen).toEqual(["PUT /latest/api/token", ROLES, `${ROLES}the-role`]);
});

test("the profile that is named, or the default", async () => {
  const one = await ask(["profile"], profile());
  expect(one.credentials).toEqual({ accessKeyId: "AKIA", secretAccessKey: "profile-secret" });
  const other = await ask(["profile"], { ...profile(), AWS_PROFILE: "other" });
  expect(other.credentials.accessKeyId).toBe("AKIB");
});

test("the environment's never change, and its secrets are hidden", async () => {
  const hidden: string[] = [];
  const variables = { AWS_ACCESS_KEY_ID: "a", AWS_SECRET_ACCESS_KEY: "b", AWS_SESSION_TOKEN: "c" };
  const found = await ask(["environment"], variables, { hide: (name) => void hidden.push(name) });
  expect(found).toMatchObject({
    canChange: false,
    credentials: { accessKeyId: "a", secretAccessKey: "b", sessionToken: "c" },
  });
  expect(hidden).toEqual(["AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"]);
});

test("the first place where something is set up counts", async () => {
  const variables = { ...instance(), ...container(), ...profile() };
  const { credentials } = await ask(["environment", "profile", "container", "instance"], variables);
  expect(credentials.accessKeyId).toBe("AKIA");
  expect(server.seen).toEqual([]);
});

test("nothing is set up anywhere: the error says what is missing where", async () => {
  const text = await reason(CREDENTIAL_PROVIDERS, { AWS_EC2_METADATA_DISABLED: "TRUE" });
  for (const part of [
    "environment: AWS_ACCESS_KEY_ID is not set",
    "profile: there is no ",
    "web_identity: AWS_WEB_IDENTITY_TOKEN_FILE is not set",
    "container: AWS_CONTAINER_CREDENTIALS_RELATIVE_URI is not set",
    "instance: AWS_EC2_METADATA_DISABLED is true",
  ]) {
    expect(text).toContain(part);
  }
});

test.each([
  ["environment", () => ({ AWS_ACCESS_KEY_ID: "a" }), "AWS_SECRET_ACCESS_KEY is not"],
  ["profile", () => ({ ...profile(), AWS_PROFILE: "absent" }), 'no profile "absent"'],
  ["profile", () => ({ ...profile(), AWS_PROFILE: "sso" }), "no aws_access_key_id"],
  ["profile", () => ({ AWS_SHARED_CREDENTIALS_FILE: "/nowhere" }), "cannot read /nowhere"],
  ["web_identity", () => ({ AWS_ROLE_ARN: "r" }), "AWS_WEB_IDENTITY_TOKEN_FILE is not"],
  ["web_identity", () => ({ ...webIdentity(), AWS_ENDPOINT_URL_STS: "ftp://x" }), "is not the URL"],
  [
    "web_identity",
    () => ({ ...webIdentity(), AWS_ENDPOINT_URL_STS: "http://sts.example" }),
    "allow_unencrypted",
  ],
  ["container", () => ({ AWS_CONTAINER_CREDENTIALS_FULL_URI: "http://10.0.0.1" }), "must be https"],
  [
    "container",
    () => ({ AWS_CONTAINER_CREDENTIALS_FULL_URI: `${server.url}/container` }),
    "status=403",
  ],
  ["instance", () => ({ AWS_EC2_METADATA_SERVICE_ENDPOINT: "nonsense" }), "is not a URL"],
  [
    "instance",
    () => ({ AWS_EC2_METADATA_SERVICE_ENDPOINT: "http://169.254.169.253" }),
    "allow_unencrypted",
  ],
] as const)(
  "%s: what is set up and does not work is an error, and no other place is asked",
  async (provider, variables, text) => {
    expect(await reason([provider, "instance"], { ...instance(), ...variables() })).toContain(text);
    expect(server.seen.filter((what) => what.startsWith("PUT"))).toEqual([]);
  },
);

test.each([
  ["profile", profile],
  ["web_identity", webIdentity],
  ["container", container],
] as const)(
  "%s: a regular file is refused without its danger flag",
  async (provider, variables) => {
    const files = { mayReadRegularFiles: false, warn: () => {} };
    expect(await reason([provider], variables(), { files })).toContain(
      "allow_secret_over_regular_file",
    );
    expect(server.seen).toEqual([]);
  },
);

test("a container's token in the environment needs its danger flag", async () => {
  const variables = {
    AWS_CONTAINER_CREDENTIALS_FULL_URI: `${server.url}/container`,
    AWS_CONTAINER_AUTHORIZATION_TOKEN: CONTAINER_TOKEN,
  };
  expect(await reason(["container"], variables, { mayReadEnvironment: false })).toContain(
    "allow_env_secrets",
  );
  expect((await ask(["container"], variables)).credentials.accessKeyId).toBe("ASIA1");
});

test("a refusal of the token service is told, without the token", async () => {
  const variables = { ...webIdentity(), AWS_WEB_IDENTITY_TOKEN_FILE: folder.file("bad-identity") };
  const text = await reason(["web_identity"], variables);
  expect(text).toContain("InvalidIdentityToken: it was (token)");
  expect(text).not.toContain("another.identity");
});

test("a refusal that repeats a long token, or a part of it, shows none of it", async () => {
  const long = `${WEB_IDENTITY}.${"x1Y2".repeat(400)}`;
  folder.write("long-identity", new TextEncoder().encode(long));
  const variables = { ...webIdentity(), AWS_WEB_IDENTITY_TOKEN_FILE: folder.file("long-identity") };
  const text = await reason(["web_identity"], variables);
  expect(text).toContain("InvalidIdentityToken: it was (token)");
  expect(text).not.toContain("x1Y2");
});

test("a container's service that repeats what it was told: none of it is shown", async () => {
  server.spoil = () => Response.json({ Code: `bad ${CONTAINER_TOKEN}` });
  const text = await reason(["container"], container());
  expect(text).toContain("its Code is bad (token)");
  expect(text).not.toContain(CONTAINER_TOKEN);
});

test("a session's token of several lines is none: it could not be sent", async () => {
  server.spoil = (what) => (what.startsWith("PUT") ? new Response("one\ntwo") : undefined);
  const text = await reason(["instance"], instance());
  expect(text).toContain('UbiError: credentials "instance": a token for the session');
});

test.each([
  ["an access key", "aws_access_key_id = A\u20ac\naws_secret_access_key = profile-secret\n"],
  ["a token", `${KEYS}aws_session_token = t\u0007\n`],
])("a profile with %s that cannot be sent is an error, and is not used", async (_, text) => {
  folder.write("credentials", new TextEncoder().encode(`[default]\n${text}`));
  expect(await reason(["profile"], profile())).toContain("a character that none has");
});

test.each([
  ["AWS_ACCESS_KEY_ID", "a\u20ac"],
  ["AWS_SESSION_TOKEN", "the-token\n"],
])("a variable %s that cannot be sent is an error, and is not used", async (name, value) => {
  const variables = { AWS_ACCESS_KEY_ID: "a", AWS_SECRET_ACCESS_KEY: "b", [name]: value };
  expect(await reason(["environment"], variables)).toContain(`${name} has a character that none`);
});

test("an instance without a role", async () => {
  server.spoil = (what) => (what === ROLES ? new Response("", { status: 404 }) : undefined);
  expect(await reason(["instance"], instance())).toContain("no role is attached");
});

test("a failure that passes is tried again", async () => {
  server.spoil = (_, nth) => (nth === 1 ? new Response("", { status: 503 }) : undefined);
  expect((await ask(["instance"], instance())).credentials.accessKeyId).toBe("ASIA1");
});

const huge = () => new Response(new Uint8Array(1_000_000).fill(65));
const endless = () =>
  new Response(
    new ReadableStream({
      async pull(controller) {
        controller.enqueue(new Uint8Array(65_536).fill(65));
        await Bun.sleep(1);
      },
    }),
  );

test.each([
  ["huge", huge],
  ["endless", endless],
  ["not what it should be", () => new Response('{"AccessKeyId": "ASIA')],
  ["without members", () => Response.json({ Code: "Success", AccessKeyId: "ASIA1" })],
  ["a redirect", () => Response.redirect("http://127.0.0.1:1/", 302)],
  ["empty", () => new Response("")],
  ["of control characters", () => new Response("a\u0000\u001b[31mb")],
])("answers that are %s are errors, from each service at each step", async (_, answer) => {
  for (const [provider, variables] of [
    ["instance", instance()],
    ["container", container()],
    ["web_identity", webIdentity()],
  ] as const) {
    server.spoil = answer;
    expect(await reason([provider], variables)).toContain(`"${provider}"`);
  }
  for (const step of [ROLES, `${ROLES}the-role`]) {
    server.spoil = (what) => (what === step ? answer() : undefined);
    expect(await reason(["instance"], instance())).toContain('"instance"');
  }
});

test("a service that is silent is given up", async () => {
  server.spoil = async () => {
    await Bun.sleep(20_000);
    return new Response("");
  };
  const startMs = performance.now();
  expect(await reason(["instance"], instance())).toContain("no answer within 2000 ms");
  expect(performance.now() - startMs).toBeLessThan(15_000);
}, 20_000);

test.each([
  [
    "instance",
    () => ({ AWS_EC2_METADATA_SERVICE_ENDPOINT: "http://127.0.0.1:1" }),
    "AWS_EC2_METADATA_SERVICE_ENDPOINT",
  ],
  [
    "container",
    () => ({ AWS_CONTAINER_CREDENTIALS_FULL_URI: "http://127.0.0.1:1/x" }),
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
  ],
  [
    "web_identity",
    () => ({ ...webIdentity(), AWS_ENDPOINT_URL_STS: "http://127.0.0.1:1" }),
    "AWS_ENDPOINT_URL_STS",
  ],
] as const)(
  "%s: where nobody answers, what names the address is told",
  async (provider, variables, name) => {
    const text = await reason([provider], variables());
    expect(text).toContain(`credentials "${provider}": no answer of 127.0.0.1:1: `);
    expect(text).toEndWith(
      `; mend ${name}, which names it, or leave "${provider}" out of credentials`,
    );
    expect(text).not.toContain("Is the computer");
  },
);

test.each([
  ["web_identity", webIdentity, "AWS_WEB_IDENTITY_TOKEN_FILE"],
  ["container", container, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"],
] as const)(
  "%s: a file of a token that is not there is told as its variable's",
  async (provider, variables, name) => {
    const asked = ask([provider], { ...variables(), [name]: "/nowhere" });
    expect(await reasonOf(asked)).toMatchObject({
      code: "E_CREDENTIALS",
      message: expect.stringContaining(
        `credentials "${provider}": ${name}: cannot read /nowhere: ENOENT`,
      ),
    });
  },
);

test("the signal ends it at once, with its reason", async () => {
  server.spoil = async () => {
    await Bun.sleep(5_000);
    return new Response("");
  };
  const controller = new AbortController();
  setTimeout(() => controller.abort(new Error("over")), 50);
  const startMs = performance.now();
  expect(await reason(["instance"], instance(), { signal: controller.signal })).toBe("Error: over");
  expect(performance.now() - startMs).toBeLessThan(2000);
});
