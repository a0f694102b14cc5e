import { expect, test } from "bun:test";
import { symlinkSync } from "node:fs";
import { join } from "node:path";
import { ConfigFolder, errorsOf } from "../../tests/support/config-folder.ts";
import { INIT_FLAGS, type InitFlags } from "./init-flags.ts";
import { requestOf } from "./init-request.ts";

/** Nothing was given. */
const NONE = Object.fromEntries(
  Object.entries(INIT_FLAGS).map(([name, { type }]) => [
    name,
    type === "boolean" ? false : undefined,
  ]),
) as InitFlags; // every flag is there with a value of its type
const flags = (given: Partial<InitFlags>): InitFlags => ({ ...NONE, ...given });

test("the defaults are those of the reference, and a socket to watch", async () => {
  expect(await requestOf(flags({ size: "1.5G" }))).toEqual({
    folder: process.cwd(),
    configPath: undefined,
    medium: { kind: "file", sizeBytes: 1.5 * 2 ** 30, isPreallocated: false },
    stripeShift: undefined,
    key: { kind: "file" },
    source: { kind: "none" },
    device: {
      vhost_socket: "vhost.sock",
      rpc_socket: "rpc.sock",
      device_id: undefined,
      track_written: undefined,
    },
    tuning: {
      num_queues: 1,
      queue_size: 64,
      seg_size_max: 65_536,
      seg_count_max: 4,
      poll_timeout_us: 1000,
      io_engine: "io_uring",
      write_through: false,
      cpus: undefined,
    },
    isPlainConnectionAllowed: false,
    isForced: false,
  });
});

test("the image is meant as it is now: links are followed", async () => {
  using folder = new ConfigFolder({ "base.raw": "x" });
  symlinkSync("base.raw", folder.file("current"));
  const { source } = await requestOf(flags({ size: "1M", base: folder.file("current") }));
  expect(source).toMatchObject({ kind: "raw", path: join(folder.path, "base.raw") });
});

test.each([
  ["32K", 6],
  ["64k", 7],
  ["1M", 11],
  ["64MiB", 17],
])("stripes of %s have 2^%d sectors", async (text, shift) => {
  const { stripeShift } = await requestOf(flags({ size: "1M", "stripe-size": text }));
  expect(stripeShift).toBe(shift);
});

test.each([
  ["0-3", [0, 1, 2, 3]],
  ["2,0", [2, 0]],
  ["1-2,7", [1, 2, 7]],
])("the CPUs %s", async (cpus, expected) => {
  expect((await requestOf(flags({ size: "1M", cpus }))).tuning.cpus).toEqual(expected);
});

test("how an archive's KEK is written is seen from the file", async () => {
  const kek = new Uint8Array(32).fill(7);
  using folder = new ConfigFolder({ raw: kek, text: `${kek.toBase64()}\n` });
  for (const [name, encoding] of [
    ["raw", "plaintext"],
    ["text", "base64"],
  ] as const) {
    const given = { size: "1M", archive: folder.path, "archive-kek": folder.file(name) };
    const { source } = await requestOf(flags(given));
    expect(source).toMatchObject({
      kek: { path: folder.file(name), encoding, isRegularFile: true },
    });
  }
});

test("a bucket has a name and a prefix", async () => {
  const given = { size: "1M", s3: "bucket/a/b", "s3-credentials": "profile,instance" };
  const { source } = await requestOf(flags(given));
  expect(source).toMatchObject({
    store: {
      bucket: "bucket",
      prefix: "a/b",
      credentials: { kind: "machine", places: ["profile", "instance"] },
    },
  });
});

test.each<[string, Partial<InitFlags>]>([
  ["--size: missing", {}],
  ["--size, --disk: only one", { size: "1M", disk: "/dev/null" }],
  ["--kek, --unencrypted: only one", { size: "1M", kek: true, unencrypted: true }],
  ["--base, --remote: only one", { size: "1M", base: "a", remote: "b:1" }],
  ["--preallocate: only with --size", { disk: "/dev/null", preallocate: true }],
  ["--copy-on-read: only with --base", { size: "1M", "copy-on-read": true }],
  ["--autofetch: only with --base or --archive", { size: "1M", autofetch: true }],
  ["--s3-region: only with --s3", { size: "1M", "s3-region": "a" }],
  ["--s3: credentials are missing", { size: "1M", s3: "b" }],
  ["--dir: empty", { size: "1M", dir: "" }],
  [
    "--s3-endpoint: http to another machine",
    { size: "1M", s3: "b", "s3-credentials": "profile", "s3-endpoint": "http://192.0.2.1" },
  ],
  ["--psk: only with --remote", { size: "1M", psk: "a" }],
  ["--psk-identity: missing", { size: "1M", remote: "a:1", psk: "/dev/null" }],
  ["--remote: the connection would not be encrypted", { size: "1M", remote: "a:1" }],
  ["--stripe-size: 3M is no power of two", { size: "1M", "stripe-size": "3M" }],
  ["--stripe-size: 16K is no power of two from 32K", { size: "1M", "stripe-size": "16K" }],
  ["--stripe-size: 128M is no power of two", { size: "1M", "stripe-size": "128M" }],
  ['--cpus: "3-1" is no list', { size: "1M", cpus: "3-1" }],
  ['--cpus: "0-99" is no list', { size: "1M", cpus: "0-99" }],
  ['--size: "1X" is no size', { size: "1X" }],
])("wrong usage: %s", async (message, given) => {
  expect(await errorsOf(requestOf(flags(given)))).toStartWith(`E_USAGE ${message}`);
});

test.each<[string, Partial<InitFlags>]>([
  ["--base", { base: "/nonexistent" }],
  ["--disk", { size: undefined, disk: "/nonexistent" }],
  ["--kek-file", { "kek-file": "/nonexistent" }],
  ["--archive", { archive: "/nonexistent" }],
  ["--psk", { remote: "a:1", psk: "/nonexistent", "psk-identity": "a" }],
])("%s of something that is not there is named", async (flag, given) => {
  const errors = await errorsOf(requestOf(flags({ size: "1M", ...given })));
  expect(errors).toStartWith(`E_INIT ${flag}: cannot open "/nonexistent"`);
});
