import { afterEach, expect, test } from "bun:test";
import { ConfigFolder, errorsOf } from "../../tests/support/config-folder.ts";
import {
  loadArchiveConfig,
  loadDeviceConfig,
  loadKeyConfig,
  loadServerConfig,
  loadTargetConfig,
} from "./load-config.ts";
import { resolveSecrets } from "./resolve-secrets.ts";

const ENV = "[danger_zone]\nenabled = true\nallow_env_secrets = true\n";
const SECRET = '[secrets.s]\nsource.env = "UBIBLK_TEST_OTHER"\n';

afterEach(() => {
  delete process.env.UBIBLK_TEST_OTHER;
});

test("a target with a key from the environment loads and resolves", async () => {
  process.env.UBIBLK_TEST_OTHER = "x".repeat(32);
  using folder = new ConfigFolder({
    "t.toml": `[target]\nstorage = "filesystem"\npath = "/a"\narchive_kek.ref = "s"\n${SECRET}${ENV}`,
  });
  const config = await loadTargetConfig(folder.file("t.toml"));
  using secrets = await resolveSecrets(config, ["target"]);
  expect(secrets.get({ ref: "s" }).length).toBe(32);
});

test("a target's relative path stays relative to the working directory, with a warning", async () => {
  using folder = new ConfigFolder({ "t.toml": '[target]\nstorage = "filesystem"\npath = "a"\n' });
  const { target, warnings } = await loadTargetConfig(folder.file("t.toml"));
  expect(target).toMatchObject({ path: "a" });
  expect(warnings.join("\n")).toContain(
    "target.path: this path is relative to the working directory",
  );
});

test("an archive's relative path starts from its document", async () => {
  using folder = new ConfigFolder({ "a.toml": '[archive]\nstorage = "filesystem"\npath = "a"\n' });
  const { archive } = await loadArchiveConfig(folder.file("a.toml"));
  expect(archive).toMatchObject({ path: folder.file("a") });
});

test("an archive and a target take no type", async () => {
  using folder = new ConfigFolder({
    "a.toml": '[archive]\ntype = "archive"\nstorage = "filesystem"\npath = "a"\n',
    "t.toml": '[target]\ntype = "archive"\nstorage = "filesystem"\npath = "a"\n',
  });
  expect(await errorsOf(loadArchiveConfig(folder.file("a.toml")))).toContain(
    "archive.type: unknown",
  );
  expect(await errorsOf(loadTargetConfig(folder.file("t.toml")))).toContain("target.type: unknown");
});

test("a device section in a target is unknown", async () => {
  using folder = new ConfigFolder({
    "t.toml": '[target]\nstorage = "filesystem"\npath = "/a"\n[device]\ndata_path = "d"\n',
  });
  expect(await errorsOf(loadTargetConfig(folder.file("t.toml")))).toContain(
    "device: unknown section",
  );
});

test.each([
  [
    loadDeviceConfig,
    "target",
    "a document with [device] is wanted here, this is one with [target]",
  ],
  [
    loadKeyConfig,
    "server",
    "a document with [encryption] is wanted here, this is one with [server]",
  ],
  [
    loadTargetConfig,
    "device",
    "a document with [target] is wanted here, this is one with [device]",
  ],
  [
    loadTargetConfig,
    "archive",
    "this is one with [archive]; in a copy of it, rename [archive] to [target]",
  ],
  [loadArchiveConfig, "target", "rename [target] to [archive]"],
])("%p of a document with [%s] tells that, and nothing else", async (load, section, message) => {
  using folder = new ConfigFolder({ "x.toml": `# of another kind\n[${section}]\nx = 1\n` });
  expect(await errorsOf(load(folder.file("x.toml")))).toMatch(
    new RegExp(
      `^E_CONFIG_KEY \\S+/x.toml:2: ${section}: unknown section: .*${RegExp.escape(message)}$`,
    ),
  );
});

test("a server with a PSK keeps its identity", async () => {
  process.env.UBIBLK_TEST_OTHER = "x".repeat(32);
  using folder = new ConfigFolder({
    "s.toml": `[server]\naddress = "host:1"\npsk = { identity = "me", secret.ref = "s" }\n${SECRET}${ENV}`,
  });
  const config = await loadServerConfig(folder.file("s.toml"));
  using secrets = await resolveSecrets(config, ["server"]);
  expect(config.server.psk?.identity).toBe("me");
  expect(secrets.get({ ref: "s" }).length).toBe(32);
});

test("a server without PSK is refused, naming the flag", async () => {
  using folder = new ConfigFolder({ "s.toml": '[server]\naddress = "127.0.0.1:1"\n' });
  const errors = await errorsOf(loadServerConfig(folder.file("s.toml")));
  expect(errors).toContain("server.psk: missing");
  expect(errors).toContain("danger_zone.allow_unencrypted_connection");
});

test("a server takes no type", async () => {
  using folder = new ConfigFolder({ "s.toml": '[server]\ntype = "remote"\naddress = "a:1"\n' });
  expect(await errorsOf(loadServerConfig(folder.file("s.toml")))).toContain("server.type: unknown");
});

test("keys without effect in a server or target are warned about", async () => {
  using folder = new ConfigFolder({
    "s.toml":
      '[server]\naddress = "a:1"\nautofetch = true\nconnections = 4\n' +
      "[danger_zone]\nenabled = true\nallow_unencrypted_connection = true\n",
    "t.toml": '[target]\nstorage = "filesystem"\npath = "/a"\nautofetch = true\n',
  });
  const server = (await loadServerConfig(folder.file("s.toml"))).warnings.join("\n");
  const target = (await loadTargetConfig(folder.file("t.toml"))).warnings.join("\n");
  expect(server).toContain("server.autofetch: has no effect here");
  expect(server).toContain("server.connections: has no effect here");
  expect(target).toContain("target.autofetch: has no effect here");
});

test("the RPC socket of a server is a path like others, and not that of its clients", async () => {
  using folder = new ConfigFolder({
    "s.toml": '[server]\nunix_socket = "a.sock"\nrpc_socket = "rpc.sock"\n',
    "same.toml": '[server]\nunix_socket = "a.sock"\nrpc_socket = "a.sock"\n',
    "none.toml": '[server]\nunix_socket = "a.sock"\n',
  });
  const { server } = await loadServerConfig(folder.file("s.toml"));
  expect(server.rpcSocket).toBe(folder.file("rpc.sock"));
  expect((await loadServerConfig(folder.file("none.toml"))).server.rpcSocket).toBeUndefined();
  expect(await errorsOf(loadServerConfig(folder.file("same.toml")))).toContain(
    "server.rpc_socket: the same path as server.unix_socket",
  );
});

test("the metrics of a server: places of its own, and of this machine", async () => {
  const sockets = 'unix_socket = "a.sock"\nrpc_socket = "b.sock"\n';
  using folder = new ConfigFolder({
    "s.toml": `[server]\n${sockets}metrics_socket = "c.sock"\nmetrics_address = "[::1]:1"\n`,
    "same.toml": `[server]\n${sockets}metrics_socket = "b.sock"\n`,
    "open.toml": `[server]\n${sockets}metrics_address = "0.0.0.0:1"\n`,
  });
  const { server } = await loadServerConfig(folder.file("s.toml"));
  expect(server).toMatchObject({
    metricsSocket: folder.file("c.sock"),
    metricsAddress: "[::1]:1",
  });
  expect(await errorsOf(loadServerConfig(folder.file("same.toml")))).toContain(
    "server.metrics_socket: the same path as server.rpc_socket",
  );
  expect(await errorsOf(loadServerConfig(folder.file("open.toml")))).toContain(
    "server.metrics_address: other machines could read the metrics",
  );
});

test("an empty document: that is told, and not all that it lacks", async () => {
  using folder = new ConfigFolder({ "empty.toml": "# nothing yet\n" });
  const path = folder.file("empty.toml");
  expect(await errorsOf(loadDeviceConfig(path))).toBe(
    `E_CONFIG ${path}: device: missing: the document is empty`,
  );
});
