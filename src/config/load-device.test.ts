import { expect, test } from "bun:test";
import { ConfigFolder, errorsOf } from "../../tests/support/config-folder.ts";
import { loadDeviceConfig, loadKeyConfig } from "./load-config.ts";

const ZONE_DISK = "[danger_zone]\nenabled = true\nallow_unencrypted_disk = true\n";
const ZONE_ENV = "[danger_zone]\nenabled = true\nallow_env_secrets = true\n";
const DEVICE = '[device]\ndata_path = "disk.raw"\n';
const KEY = `[encryption]
xts_key.ref = "k"
[secrets.k]
source.env = "TEST_UNUSED_KEY"
${ZONE_ENV}`;

const load = async (text: string) => {
  using folder = new ConfigFolder({ "c.toml": text });
  return await loadDeviceConfig(folder.file("c.toml"));
};

test("a whole document loads with the values as given", async () => {
  const config = await load(
    `${DEVICE}${KEY}[tuning]\nnum_queues = 2\ncpus = [0, 1]\npoll_timeout_us = 5000\n`,
  );
  expect(config.tuning).toMatchObject({ numQueues: 2, cpus: [0, 1], pollTimeoutUs: 5000 });
  expect(config.encryption).toEqual({ xtsKey: { ref: "k" } });
  expect(config.secrets.names).toEqual(["k"]);
});

test("a document of one section has the documented defaults", async () => {
  const config = await load(DEVICE + ZONE_DISK);
  expect(config.device).toMatchObject({ deviceId: "ubiblk", trackWritten: false, readOnly: false });
  expect(config.tuning).toEqual({
    numQueues: 1,
    queueSize: 64,
    segSizeMax: 65536,
    segCountMax: 4,
    pollTimeoutUs: 1000,
    ioEngine: "io_uring",
    writeThrough: false,
    disableDiscard: false,
    overdueRequestMs: 30_000,
    ublkMaxIoBytes: 2 ** 20,
  });
});

test("a document without device section is refused", async () => {
  expect(await errorsOf(load("[tuning]\nnum_queues = 1\n"))).toContain(
    "device: missing: the section [device] is required",
  );
});

test("a reference to a secret that is not declared is named", async () => {
  const errors = await errorsOf(load(`${DEVICE}[encryption]\nxts_key.ref = "nonexistent_key"\n`));
  expect(errors).toContain('encryption.xts_key.ref: no secret is named "nonexistent_key"');
});

test("a disk without encryption is refused, naming the flag that would allow it", async () => {
  const errors = await errorsOf(load(DEVICE));
  expect(errors).toContain("E_CONFIG_DANGER");
  expect(errors).toContain("allow_unencrypted_disk");
});

test("a disk without encryption loads with the flag", async () => {
  expect((await load(DEVICE + ZONE_DISK)).encryption).toBeUndefined();
});

test("encryption is used although the danger zone allows none", async () => {
  const zone = "allow_unencrypted_disk = true\n";
  expect((await load(DEVICE + KEY + zone)).encryption).toBeDefined();
});

test("an unknown key is named with its section, line and the right name", async () => {
  const errors = await errorsOf(load(`${DEVICE}trak_written = true\n${ZONE_DISK}`));
  expect(errors).toMatch(
    /c\.toml:3: device\.trak_written: unknown key; did you mean track_written\?/,
  );
});

test("an unknown section is named", async () => {
  const errors = await errorsOf(load(`${DEVICE}${ZONE_DISK}[unknown_section]\nx = 1\n`));
  expect(errors).toContain("c.toml:6: unknown_section: unknown section; known are device, tuning");
});

test.each([
  ["num_queues = 0", "0 is out of range; 1 to 63"],
  ["num_queues = 64", "64 is out of range; 1 to 63"],
  ["num_queues = 257", "257 is out of range"],
  ["queue_size = 0", "0 is out of range"],
  ["queue_size = 3", "3 is not a power of two"],
  ["queue_size = 65536", "a virtqueue and an io_uring have 32768 entries at most"],
  ["queue_size = 65537", "65537 is out of range"],
  ["seg_size_max = 0", "0 is out of range"],
  ["seg_size_max = 1048577", "1048577 is out of range"],
  ["seg_count_max = 0", "0 is out of range"],
  ["seg_count_max = 257", "257 is out of range"],
  ["num_queues = 2\ncpus = [0]", "1 entries for 2 queues"],
  ["cpus = []", "0 entries for 1 queues"],
  ["poll_timeout_us = 10000001", "10000001 is out of range; 0 to 10000000"],
  ["num_queues = -1", "-1 is out of range"],
  ["num_queues = 9223372036854775807", "is out of range"],
  ["num_queues = 1.0", "an integer is expected, not a float"],
  ['num_queues = "4"', "an integer is expected, not a string"],
  ["write_through = 1", "true or false is expected, not an integer"],
  ['io_engine = "IO_URING"', '"IO_URING": one of "io_uring", "sync" is expected'],
  ["cpus = [0.5]", "tuning.cpus.0: an integer is expected, not a float"],
])("the tuning %j is refused with the reason", async (tuning, reason) => {
  const errors = await errorsOf(load(`${DEVICE}${ZONE_DISK}[tuning]\n${tuning}\n`));
  expect(errors).toContain(reason);
});

test.each([
  "queue_size = 1",
  "queue_size = 32768",
  "num_queues = 63",
  "seg_size_max = 1048576",
  "seg_count_max = 256",
  "poll_timeout_us = 0",
  "poll_timeout_us = 10_000_000",
  'io_engine = "sync"',
  "num_queues = 2\ncpus = [999, 999]",
])("the tuning %j is accepted", async (tuning) => {
  expect(await errorsOf(load(`${DEVICE}${ZONE_DISK}[tuning]\n${tuning}\n`))).toBe("");
});

test.each([
  ["tuning = [2, 128]", "tuning: a table is expected, not an array"],
  ["device = 1", "device: a table is expected, not an integer"],
  ["device.data_path = 1979-05-27", "device.data_path: a string is expected, not a date"],
  ['device.data_path = ""', "device.data_path: must not be empty"],
  ['device.vhost_socket = ""', "device.vhost_socket: must not be empty"],
  ["tuning.io_engine = { sync = {} }", "tuning.io_engine: one of"],
  ["secrets = 'bad'", "secrets: a table is expected, not a string"],
  ["secrets = []", "secrets: a table is expected, not an array"],
])("%j is refused for its type", async (text, reason) => {
  expect(await errorsOf(load(`${text}\n`))).toContain(reason);
});

test("all mistakes of a document are reported at once, in the order of its lines", async () => {
  const errors = await errorsOf(
    load(
      '[tuning]\nnum_queues = 0\nio_engine = "x"\n[device]\ndata_pth = "d"\n' +
        '[encryption]\nxts_key = "hunter2"\n[secrets.a]\nsource = {}\n',
    ),
  );
  expect(errors.split("\n").map((line) => line.replace(/^.*c\.toml:/, ""))).toEqual([
    "2: tuning.num_queues: 0 is out of range; 1 to 63 is accepted",
    '3: tuning.io_engine: "x": one of "io_uring", "sync" is expected',
    "4: device.data_path: missing: this key is required",
    "5: device.data_pth: unknown key; did you mean data_path?",
    '7: encryption.xts_key: a reference to a secret is expected, not a string; write { ref = "NAME" }',
    "9: secrets.a.source: exactly one of file, inline, env, credential is expected",
  ]);
});

test("a value that is wrong by itself is told beside others of its section", async () => {
  const text =
    '[device]\ndata_pth = "d"\nmetrics_address = "0.0.0.0:9000"\n' +
    `[tuning]\nnum_queues = 0\nqueue_size = 63\ncpus = [1, 2]\n${ZONE_DISK}`;
  const errors = await errorsOf(load(text));
  expect(errors.split("\n").map((line) => line.replace(/^.*c\.toml:/, ""))).toEqual([
    "1: device.data_path: missing: this key is required",
    "2: device.data_pth: unknown key; did you mean data_path?",
    expect.stringMatching(/^3: device\.metrics_address: other machines could read/),
    "5: tuning.num_queues: 0 is out of range; 1 to 63 is accepted",
    "6: tuning.queue_size: 63 is not a power of two; 1 to 32768 is accepted",
  ]);
});

test("a mistake in an included file names that file", async () => {
  using folder = new ConfigFolder({
    "c.toml": `include = ["t.toml"]\n${DEVICE}${ZONE_DISK}`,
    "t.toml": "\n[tuning]\nnum_queus = 1\n",
  });
  const errors = await errorsOf(loadDeviceConfig(folder.file("c.toml")));
  expect(errors).toContain(`${folder.file("t.toml")}:3: tuning.num_queus: unknown key`);
});

test("relative paths start from the directory of the document, absolute ones stay", async () => {
  using folder = new ConfigFolder({
    "c.toml":
      '[device]\ndata_path = "d"\nmetadata_path = "m"\nvhost_socket = "v"\nrpc_socket = "/run/r"\n' +
      `[stripe_source]\ntype = "raw"\nimage_path = "i"\n${ZONE_DISK}`,
  });
  const { device, stripeSource } = await loadDeviceConfig(folder.file("c.toml"));
  expect(device).toMatchObject({
    dataPath: folder.file("d"),
    metadataPath: folder.file("m"),
    vhostSocket: folder.file("v"),
    rpcSocket: "/run/r",
  });
  expect(stripeSource).toMatchObject({ imagePath: folder.file("i") });
});

test("keys that a program demands are missed before secrets are read", async () => {
  using folder = new ConfigFolder({ "c.toml": DEVICE + ZONE_DISK });
  const loading = loadDeviceConfig(folder.file("c.toml"), { require: ["vhost_socket"] });
  expect(await errorsOf(loading)).toContain("device.vhost_socket: missing: this command needs it");
});

test("a stripe source without metadata is refused", async () => {
  const source = '[stripe_source]\ntype = "raw"\nimage_path = "i"\n';
  expect(await errorsOf(load(DEVICE + source + ZONE_DISK))).toContain("device.metadata_path");
});

test("two keys with the same path are refused", async () => {
  const errors = await errorsOf(load(`${DEVICE}metadata_path = "disk.raw"\n${ZONE_DISK}`));
  expect(errors).toContain("device.metadata_path: the same path as device.data_path");
});

test("a device id that a guest sees only a part of is warned about", async () => {
  const { warnings } = await load(`${DEVICE}device_id = "ééééééééééé"\n${ZONE_DISK}`);
  expect(warnings.join("\n")).toContain("device.device_id: 22 bytes; a guest sees the first 20");
});

test("a device id of twenty bytes has no warning of its own", async () => {
  const { warnings } = await load(`${DEVICE}device_id = "12345678901234567890"\n${ZONE_DISK}`);
  expect(warnings.join("\n")).not.toContain("device_id");
});

test("a CPU that the process may not use is warned about when a front end serves", async () => {
  using folder = new ConfigFolder({ "c.toml": `${DEVICE}${ZONE_DISK}[tuning]\ncpus = [99999]\n` });
  const { warnings } = await loadDeviceConfig(folder.file("c.toml"), { backend: "vhost" });
  expect(warnings.join("\n")).toContain("may not run on CPU 99999");
});

test("keys that ublk does not use are warned about", async () => {
  using folder = new ConfigFolder({
    "c.toml": `${DEVICE}vhost_socket = "v"\n${ZONE_DISK}[tuning]\nseg_size_max = 4096\nseg_count_max = 8\npoll_timeout_us = 0\n`,
  });
  const { warnings } = await loadDeviceConfig(folder.file("c.toml"), { backend: "ublk" });
  const text = warnings.join("\n");
  expect(text).toContain("tuning.poll_timeout_us: has no effect here");
  expect(text).toContain("tuning.seg_size_max: has no effect here");
  expect(text).toContain("tuning.seg_count_max: has no effect here");
  expect(text).toContain("device.vhost_socket: has no effect here");
});

test.each([
  ["queue_size = 8192", "tuning.queue_size: 8192 is out of range for ublk"],
  ["ublk_max_io_bytes = 5000", "tuning.ublk_max_io_bytes: 5000 is not a multiple of 4096"],
  ["queue_size = 4096\nublk_max_io_bytes = 2097152", "more than the 4 GiB that a queue may have"],
])("what is too much for ublk is refused: %s", async (lines, message) => {
  using folder = new ConfigFolder({ "c.toml": `${DEVICE}${ZONE_DISK}[tuning]\n${lines}\n` });
  const loading = loadDeviceConfig(folder.file("c.toml"), { backend: "ublk" });
  expect(await errorsOf(loading)).toContain(message);
});

test("the keys that only this program knows are accepted", async () => {
  const config = await load(
    `${DEVICE}read_only = true\n${ZONE_DISK}[tuning]\ndisable_discard = true\n`,
  );
  expect(config.device.readOnly).toBe(true);
  expect(config.tuning.disableDiscard).toBe(true);
});

test("a program that needs only the key accepts a document without device", async () => {
  using folder = new ConfigFolder({ "c.toml": KEY });
  const config = await loadKeyConfig(folder.file("c.toml"));
  expect(config.device).toBeUndefined();
  expect(config.encryption.xtsKey.ref).toBe("k");
});

test("a program that needs only the key refuses a document without encryption", async () => {
  using folder = new ConfigFolder({ "c.toml": DEVICE + ZONE_DISK });
  expect(await errorsOf(loadKeyConfig(folder.file("c.toml")))).toContain(
    "encryption: missing: the section [encryption] is required",
  );
});

test.each(["127.0.0.1:9464", "127.8.9.1:0", "[::1]:9464", "localhost:65535"])(
  "metrics_address %s: of this machine, so it is accepted",
  async (address) => {
    const config = await load(`${DEVICE}metrics_address = "${address}"\n${ZONE_DISK}`);
    expect(config.device.metricsAddress).toBe(address);
  },
);

test.each(["0.0.0.0:9464", "192.0.2.1:9464", "[::]:9464", "[2001:db8::1]:9464"])(
  "metrics_address %s: others could read it, so it needs a flag",
  async (address) => {
    const text = `${DEVICE}metrics_address = "${address}"\n${ZONE_DISK}`;
    expect(await errorsOf(load(text))).toMatch(
      /E_CONFIG_DANGER \S+:3: device\.metrics_address: other machines could read .*allow_remote_metrics/,
    );
    const { device, warnings } = await load(`${text}allow_remote_metrics = true\n`);
    expect(device.metricsAddress).toBe(address);
    expect(warnings.join()).toContain("device.metrics_address (allow_remote_metrics)");
  },
);

test.each([
  "9464",
  ":9464",
  "127.0.0.1",
  "127.0.0.1:65536",
  "127.0.0.1:x",
  "::1:9464",
  "host.example:9464",
  "[127.0.0.1]:1",
])("metrics_address %s: no address to listen at", async (address) => {
  const text = `${DEVICE}metrics_address = "${address}"\n${ZONE_DISK}`;
  expect(await errorsOf(load(text))).toMatch(
    /E_CONFIG_VALUE \S+:3: device\.metrics_address: not an address to listen at/,
  );
});

test("metrics_socket: not at the path of another socket", async () => {
  const text = `${DEVICE}rpc_socket = "a.sock"\nmetrics_socket = "a.sock"\n${ZONE_DISK}`;
  expect(await errorsOf(load(text))).toContain(
    "device.metrics_socket: the same path as device.rpc_socket",
  );
});

test("limits: none unless set, and as they are set", async () => {
  expect((await load(DEVICE + ZONE_DISK)).limits).toEqual({});
  const set = "[limits]\niops = 1000\niops_burst = 3000\nwrite_bytes_per_second = 4096\n";
  const { limits } = await load(DEVICE + ZONE_DISK + set);
  expect(limits).toEqual({ iops: 1000, iopsBurst: 3000, writeBytesPerSecond: 4096 });
});

test.each([
  ["iops = 0", "limits.iops: 0 is out of range; 1 to 9007199254740991 is accepted"],
  ["read_bytes_per_second = 4095", "limits.read_bytes_per_second: 4095 is out of range; 4096 to"],
  ["iops = 1.5", "limits.iops: an integer is expected"],
  ['iops = "many"', "limits.iops: an integer is expected"],
  ["iop = 100", "limits.iop: unknown key; did you mean iops?"],
  ["iops_burst = 10", "limits.iops_burst: has no effect without limits.iops"],
  [
    "bytes_per_second = 50_000_000\nbytes_burst = 4096",
    "limits.bytes_burst: 4096 is less than limits.bytes_per_second gives in a millisecond; at least 50000",
  ],
])("limits with %s: refused", async (line, error) => {
  expect(await errorsOf(load(`${DEVICE}${ZONE_DISK}[limits]\n${line}\n`))).toContain(error);
});
