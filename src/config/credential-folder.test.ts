import { afterEach, expect, test } from "bun:test";
import { chmodSync, mkdirSync, statSync, symlinkSync } from "node:fs";
import { ConfigFolder, errorsOf } from "../../tests/support/config-folder.ts";
import { loadKeyConfig } from "./load-config.ts";
import { resolveSecrets } from "./resolve-secrets.ts";

const KEY = "x".repeat(64);
const documentWith = (source: string) =>
  `[encryption]\nxts_key.ref = "k"\n[secrets.k]\nsource.${source}\n`;

afterEach(() => {
  delete process.env.CREDENTIALS_DIRECTORY;
});

/** A document beside a folder of credentials, which has one named `key`. */
class CredentialWorld {
  readonly #folder = new ConfigFolder();
  readonly credentials = this.#folder.file("credentials");

  constructor(source: string) {
    this.#folder.write("c.toml", documentWith(source.replace("FOLDER", this.credentials)));
    mkdirSync(this.credentials, { mode: 0o700 });
    this.#folder.write("credentials/key", KEY, 0o400);
    process.env.CREDENTIALS_DIRECTORY = this.credentials;
  }

  file(name: string): string {
    return this.#folder.file(name);
  }

  async keyBytes(): Promise<number> {
    const config = await loadKeyConfig(this.#folder.file("c.toml"));
    using secrets = await resolveSecrets(config, ["encryption"]);
    return secrets.get(config.encryption.xtsKey).length;
  }

  [Symbol.dispose](): void {
    chmodSync(this.credentials, 0o700);
    this.#folder[Symbol.dispose]();
  }
}

test("a credential is read by its name, without a flag of the danger zone", async () => {
  using world = new CredentialWorld('credential = "key"');
  expect(await world.keyBytes()).toBe(64);
});

test("a file in the folder of credentials needs no flag either", async () => {
  using world = new CredentialWorld('file = "FOLDER/key"');
  expect(await world.keyBytes()).toBe(64);
});

test("a folder and a file that an access control list opens for the service's user are right", async () => {
  using world = new CredentialWorld('credential = "key"');
  chmodSync(`${world.credentials}/key`, 0o440);
  chmodSync(world.credentials, 0o550);
  expect(await world.keyBytes()).toBe(64);
});

test("without a folder of credentials the message says what to do", async () => {
  using world = new CredentialWorld('credential = "key"');
  delete process.env.CREDENTIALS_DIRECTORY;
  const errors = await errorsOf(world.keyBytes());
  expect(errors).toContain("E_SECRET_READ");
  expect(errors).toContain("CREDENTIALS_DIRECTORY is not set; start it as a service");
});

test("a credential that is not there is named", async () => {
  using world = new CredentialWorld('credential = "other"');
  expect(await errorsOf(world.keyBytes())).toMatch(/cannot read .*credentials\/other: ENOENT/);
});

test.each(["../key", "a/b", ".", "..", "a:b"])("the name %s is refused", async (name) => {
  using world = new CredentialWorld(`credential = "${name}"`);
  expect(await errorsOf(world.keyBytes())).toContain(
    "secrets.k.source.credential: not the name of a credential",
  );
});

test("a symbolic link out of the folder is a file like any other", async () => {
  using world = new CredentialWorld('credential = "link"');
  symlinkSync(world.file("c.toml"), `${world.credentials}/link`);
  expect(await errorsOf(world.keyBytes())).toContain("E_CONFIG_DANGER");
});

test("a path out of the folder is a file like any other", async () => {
  using world = new CredentialWorld('file = "FOLDER/../c.toml"');
  expect(await errorsOf(world.keyBytes())).toContain("E_CONFIG_DANGER");
});

test.each([0o404, 0o420, 0o402])(
  "a credential of mode %o is a file like any other",
  async (mode) => {
    using world = new CredentialWorld('credential = "key"');
    chmodSync(`${world.credentials}/key`, mode);
    expect(await errorsOf(world.keyBytes())).toContain("E_CONFIG_DANGER");
  },
);

test("a folder that everybody can look into holds no credentials", async () => {
  using world = new CredentialWorld('credential = "key"');
  chmodSync(world.credentials, 0o755);
  expect(statSync(`${world.credentials}/key`).mode & 0o777).toBe(0o400);
  expect(await errorsOf(world.keyBytes())).toContain("E_CONFIG_DANGER");
});
