import { expect, test } from "bun:test";
import { parseToml } from "../config/toml.ts";
import { dangersOf, documentText } from "./disk-document.ts";
import { expectedTables } from "./disk-keys.ts";
import type { DiskRequest } from "./disk-request.ts";
import { checkedConfig } from "./document-check.ts";

const REQUEST: DiskRequest = {
  folder: "/vm",
  configPath: undefined,
  medium: { kind: "file", sizeBytes: 2 ** 30, isPreallocated: false },
  stripeShift: undefined,
  key: { kind: "file" },
  source: { kind: "none" },
  device: { vhost_socket: "vhost.sock", rpc_socket: "rpc.sock" },
  tuning: {
    num_queues: 2,
    queue_size: 128,
    seg_size_max: 65_536,
    seg_count_max: 4,
    poll_timeout_us: 0,
    io_engine: "sync",
    write_through: true,
    cpus: [0, 0],
  },
  isPlainConnectionAllowed: false,
  isForced: false,
};
const PIPE = { path: "/run/p", encoding: "plaintext", isRegularFile: false } as const;
const FILE = { path: "/etc/f", encoding: "base64", isRegularFile: true } as const;
const BUCKET = {
  kind: "s3",
  bucket: "b",
  prefix: "a/b",
  region: "us-east-1",
  endpoint: undefined,
  isPathStyle: false,
  caFile: undefined,
} as const;
const GIVEN = {
  kind: "given-kek",
  path: "/kek",
  isRegularFile: false,
  credential: undefined,
} as const;
const FILL = { autofetch: false } as const;

const configOf = (request: DiskRequest) =>
  checkedConfig(documentText(request, expectedTables(request.key)), "/vm", () => undefined);

test("a plain request: paths, tuning, key and nothing else", () => {
  const text = documentText(REQUEST, expectedTables(REQUEST.key));
  expect(JSON.parse(JSON.stringify(parseToml(text, "f")))).toEqual({
    device: {
      data_path: "disk.raw",
      metadata_path: "metadata",
      vhost_socket: "vhost.sock",
      rpc_socket: "rpc.sock",
    },
    tuning: { ...REQUEST.tuning, cpus: [0, 0] },
    encryption: { xts_key: { ref: "xts_key" } },
    secrets: { xts_key: { source: { file: "xts_key" }, encoding: "base64" } },
    danger_zone: { enabled: true, allow_secret_over_regular_file: true },
  });
});

test("a configuration that lies elsewhere has whole paths", () => {
  const text = documentText(
    { ...REQUEST, configPath: "/etc/vm.toml" },
    expectedTables(REQUEST.key),
  );
  const config = checkedConfig(text, "/etc", () => undefined);
  expect(config.device).toMatchObject({
    dataPath: "/vm/disk.raw",
    metadataPath: "/vm/metadata",
    vhostSocket: "/vm/vhost.sock",
    rpcSocket: "/vm/rpc.sock",
  });
  expect(config.secrets.declaration("xts_key")?.source.file).toBe("/vm/xts_key");
});

test("a device, an ID and tracking appear in [device]", () => {
  const device = { ...REQUEST.device, device_id: "vm-1", track_written: true } as const;
  const medium = { kind: "device", path: "/dev/vg/vm" } as const;
  expect(configOf({ ...REQUEST, medium, device }).device).toMatchObject({
    dataPath: "/dev/vg/vm",
    metadataPath: "/vm/metadata",
    deviceId: "vm-1",
    trackWritten: true,
  });
});

test("a path that TOML would read otherwise arrives as it is", () => {
  const path = `/a "b" \\ 'c'\n#=]\t\u{1f4a9}`;
  const source = { kind: "raw", path, copyOnRead: true, autofetch: true } as const;
  expect(configOf({ ...REQUEST, source }).stripeSource).toMatchObject({
    type: "raw",
    imagePath: path,
    copyOnRead: true,
    autofetch: true,
  });
});

test.each<[string, Partial<DiskRequest>, readonly string[]]>([
  ["a key in a file", {}, ["allow_secret_over_regular_file"]],
  ["a KEK in a file", { key: { kind: "new-kek" } }, ["allow_secret_over_regular_file"]],
  [
    "a KEK of somebody else in a file",
    { key: { ...GIVEN, isRegularFile: true } },
    ["allow_secret_over_regular_file"],
  ],
  ["a KEK from a pipe", { key: GIVEN }, []],
  [
    "a KEK in a file that the service gets as a credential",
    { key: { ...GIVEN, isRegularFile: true, credential: "kek" } },
    [],
  ],
  ["no encryption", { key: { kind: "none" } }, ["allow_unencrypted_disk"]],
  [
    "no encryption, and an archive's KEK in a file",
    {
      key: { kind: "none" },
      source: { ...FILL, kind: "archive", store: { kind: "folder", path: "/a" }, kek: FILE },
    },
    ["allow_unencrypted_disk", "allow_secret_over_regular_file"],
  ],
  [
    "a server without a key",
    {
      key: GIVEN,
      source: { ...FILL, kind: "remote", address: "h:1", psk: undefined },
      isPlainConnectionAllowed: true,
    },
    ["allow_unencrypted_connection"],
  ],
  [
    "credentials of the environment",
    {
      key: GIVEN,
      source: {
        ...FILL,
        kind: "archive",
        store: { ...BUCKET, credentials: { kind: "machine", places: ["environment"] } },
        kek: PIPE,
      },
    },
    ["allow_env_secrets"],
  ],
])("dangers: %s", (_what, part, expected) => {
  const request = { ...REQUEST, ...part };
  expect(dangersOf(request)).toEqual(expected);
  expect(configOf(request).dangerZone.enabled).toBe(expected.length > 0);
});

test("a bucket with its files", () => {
  const credentials = {
    kind: "files",
    accessKeyId: PIPE,
    secretAccessKey: FILE,
    sessionToken: PIPE,
  } as const;
  const store = { ...BUCKET, endpoint: "https://s3.example", isPathStyle: true, credentials };
  const config = configOf({ ...REQUEST, source: { ...FILL, kind: "archive", store, kek: FILE } });
  expect(config.stripeSource).toMatchObject({
    storage: "s3",
    bucket: "b",
    prefix: "a/b",
    endpoint: "https://s3.example",
    forcePathStyle: true,
    accessKeyId: { ref: "access_key_id" },
    archiveKek: { ref: "archive_kek" },
  });
  expect(config.secrets.declaration("session_token")?.source.file).toBe("/run/p");
  expect(config.secrets.declaration("archive_kek")?.encoding).toBe("base64");
});

test("a server with its key", () => {
  const psk = { identity: "host-a", secret: PIPE };
  const source = { ...FILL, kind: "remote", address: "[::1]:7777", psk } as const;
  expect(configOf({ ...REQUEST, source }).stripeSource).toMatchObject({
    type: "remote",
    address: "[::1]:7777",
    psk: { identity: "host-a", secret: { ref: "psk" } },
  });
});

test("what configurations do not allow is refused with the flag that it comes from", () => {
  const tuning = { ...REQUEST.tuning, queue_size: 3 };
  const source = { ...FILL, kind: "remote", address: "nowhere", psk: undefined } as const;
  const errors = () => configOf({ ...REQUEST, tuning, source });
  expect(errors).toThrow("--queue-size: tuning.queue_size: 3 is not a power of two");
  expect(errors).toThrow("--remote: stripe_source.address: not an address");
  expect(errors).toThrow("--psk: stripe_source.psk: missing");
});
