/** `ubiblk doctor`: each kind of trouble with a disk, and the line that tells it. */
import { describe, expect, test } from "bun:test";
import { chmodSync, linkSync, mkdirSync, rmSync, symlinkSync, truncateSync } from "node:fs";
import { createServer } from "node:net";
import { EXECUTABLE } from "../support/backend.ts";
import {
  type Check,
  checkOf,
  DoctorPlace,
  faultsOf,
  retarget,
  s3At,
  source,
} from "../support/doctor-place.ts";
import { servePeer } from "../support/rpc-peers.ts";

const MIB = 2 ** 20;

/** A disk of which nothing is fetched yet, and its image. */
function imageToFetch(place: DoctorPlace, keys = ""): void {
  source(place, `type = "raw"\nimage_path = "image.raw"\n${keys}`);
  place.write("image.raw", new Uint8Array(2 * MIB).fill(1));
  const made = Bun.spawnSync([EXECUTABLE, "init-metadata", "-f", place.config]);
  expect(made.exitCode).toBe(0);
}

/** What is wrong, and the line that tells it. */
const TROUBLES: readonly {
  readonly name: string;
  readonly prepare?: (place: DoctorPlace) => void;
  /** Something that listens meanwhile. */
  readonly peer?: (place: DoctorPlace) => Promise<Disposable>;
  readonly told: Partial<Omit<Check, "found">> & {
    readonly subject: string;
    readonly found: RegExp;
  };
}[] = [
  {
    name: "no configuration",
    prepare: (place) => rmSync(place.config),
    told: { subject: "configuration", check: "E_CONFIG_READ", found: /disk\.toml: ENOENT/ },
  },
  {
    name: "a folder as configuration",
    prepare: (place) => {
      rmSync(place.config);
      mkdirSync(place.config);
    },
    told: { subject: "configuration", check: "E_CONFIG_READ", found: /EISDIR/ },
  },
  {
    name: "a configuration that others can change",
    prepare: (place) => chmodSync(place.config, 0o666),
    told: { subject: "configuration", check: "E_CONFIG_READ", found: /mode 0666/ },
  },
  {
    name: "an unknown key",
    prepare: (place) => place.configure('vhost_sock = "x"'),
    told: { subject: "configuration", check: "E_CONFIG_KEY", found: /:5: device\.vhost_sock/ },
  },
  {
    name: "no disk",
    prepare: (place) => rmSync(place.file("disk.raw")),
    told: { subject: "data_path", check: "file", found: /cannot open data .*disk\.raw: ENOENT/ },
  },
  {
    name: "a folder as disk",
    prepare: (place) => {
      rmSync(place.file("disk.raw"));
      mkdirSync(place.file("disk.raw"));
    },
    told: { subject: "data_path", check: "file", found: /neither a file nor a block device/ },
  },
  {
    name: "a link to itself as disk",
    prepare: (place) => {
      rmSync(place.file("disk.raw"));
      symlinkSync("disk.raw", place.file("disk.raw"));
    },
    told: { subject: "data_path", check: "file", found: /ELOOP/ },
  },
  {
    name: "an empty disk",
    prepare: (place) => truncateSync(place.file("disk.raw"), 0),
    told: { subject: "data_path", check: "size", found: /it is empty/ },
  },
  {
    name: "a disk that is no whole number of sectors",
    prepare: (place) => truncateSync(place.file("disk.raw"), MIB + 100),
    told: { subject: "data_path", check: "size", found: /1048676 bytes, which is not a multiple/ },
  },
  {
    name: "no key",
    prepare: (place) => rmSync(place.file("key")),
    told: { subject: "secrets", check: "key", found: /cannot read .*key: ENOENT/ },
  },
  {
    name: "a key of another size",
    prepare: (place) => place.write("key", new Uint8Array(32)),
    told: { subject: "secrets", check: "[encryption]", found: /has 32 bytes; exactly 64/ },
  },
  {
    name: "a key that others can change",
    prepare: (place) => chmodSync(place.file("key"), 0o622),
    told: { subject: "secrets", check: "key", found: /mode 0622 lets other users change it/ },
  },
  {
    name: "no metadata",
    prepare: (place) => place.configure('metadata_path = "meta"'),
    told: {
      subject: "metadata_path",
      check: "file",
      found: /cannot open metadata .*meta: ENOENT/,
      advice: "run ubiblk init-metadata",
    },
  },
  {
    name: "metadata that is empty",
    prepare: (place) => {
      place.configure('metadata_path = "meta"');
      place.write("meta", "");
    },
    told: {
      subject: "metadata_path",
      check: "file",
      found: /meta is empty/,
      advice: "run ubiblk init-metadata for a new disk, or bring it back from a copy",
    },
  },
  {
    name: "metadata that is noise",
    prepare: (place) => {
      place.configure('metadata_path = "meta"');
      place.write("meta", new Uint8Array(4096).fill(7));
    },
    told: { subject: "metadata_path", check: "content", found: /cannot use metadata/ },
  },
  {
    name: "a folder that is missing for a socket",
    prepare: (place) => retarget(place, "vhost.sock", "none/v.sock"),
    told: { subject: "vhost_socket", check: "folder", found: /cannot make a socket in .*none/ },
  },
  {
    name: "a socket's path that is too long",
    prepare: (place) => retarget(place, "vhost.sock", `${"x".repeat(120)}.sock`),
    told: { subject: "vhost_socket", check: "path", found: /a socket's path at most 107/ },
  },
  {
    name: "a file at the place of a socket",
    prepare: (place) => place.write("vhost.sock", "mine"),
    told: { subject: "vhost_socket", check: "socket", found: /exists and is not a socket/ },
  },
  ...["vhost_socket_owner", "vhost_socket_group", "rpc_socket_group"].map((key) => ({
    name: `an unknown name as ${key}`,
    prepare: (place: DoctorPlace) => place.configure(`${key} = "nosuch"`),
    told: {
      subject: key.replace(/_[a-z]+$/, ""),
      check: "rights",
      found: new RegExp(`device\\.${key}: there is no "nosuch" in /etc/`),
    },
  })),
  {
    name: "an unknown group of the metrics",
    prepare: (place) =>
      place.configure('metrics_socket = "m.sock"\nmetrics_socket_group = "nosuch"'),
    told: { subject: "metrics_socket", check: "rights", found: /there is no "nosuch"/ },
  },
  {
    name: "an address of metrics that is in use",
    peer: async (place) => {
      const server = createServer();
      await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
      const address = server.address();
      const port = typeof address === "object" ? address?.port : undefined;
      place.configure(`metrics_address = "127.0.0.1:${port}"`);
      return { [Symbol.dispose]: () => void server.close() };
    },
    told: { subject: "metrics_address", check: "address", found: /another program listens there/ },
  },
  {
    name: "an RPC socket that never answers",
    peer: (place) => servePeer(place.file("rpc.sock"), () => undefined),
    told: { subject: "rpc_socket", check: "answer", found: /no answer within 2 s/ },
  },
  {
    name: "an RPC socket of something else",
    peer: (place) => servePeer(place.file("rpc.sock"), () => ({ text: "220 mail ESMTP\r\n" })),
    told: { subject: "rpc_socket", check: "answer", found: /no JSON/ },
  },
  {
    name: "an image that is missing",
    prepare: (place) => source(place, 'type = "raw"\nimage_path = "image.raw"'),
    told: { subject: "stripe_source", check: "image", found: /image .*image\.raw: ENOENT/ },
  },
  {
    name: "an image that is larger than the disk",
    prepare: (place) => {
      source(place, 'type = "raw"\nimage_path = "image.raw"');
      place.write("image.raw", "");
      truncateSync(place.file("image.raw"), 5 * MIB);
    },
    told: {
      subject: "stripe_source",
      check: "image",
      found: /5242880 bytes, the disk .*disk\.raw only 4194304/,
    },
  },
  {
    name: "an image that is the disk by another name",
    prepare: (place) => {
      source(place, 'type = "raw"\nimage_path = "image.raw"');
      linkSync(place.file("disk.raw"), place.file("image.raw"));
    },
    told: { subject: "stripe_source", check: "image", found: /image\.raw is the disk itself/ },
  },
  {
    name: "an image that is the metadata by another name",
    prepare: (place) => {
      imageToFetch(place);
      rmSync(place.file("image.raw"));
      linkSync(place.file("meta"), place.file("image.raw"));
    },
    told: { subject: "stripe_source", check: "image", found: /image\.raw is the metadata file/ },
  },
  {
    name: "an image that ends before what is still to be fetched",
    prepare: (place) => {
      imageToFetch(place);
      truncateSync(place.file("image.raw"), MIB);
    },
    told: { subject: "stripe_source", check: "image", found: /ends before stripe 1, which is/ },
  },
  {
    name: "a prefetch that is missing",
    prepare: (place) => imageToFetch(place, 'prefetch = "list"'),
    told: { subject: "stripe_source", check: "lists", found: /prefetch .*list: ENOENT/ },
  },
  {
    name: "a prefetch that is no list",
    prepare: (place) => {
      imageToFetch(place, 'prefetch = "list"');
      place.write("list", "1 2 three\n");
    },
    told: { subject: "stripe_source", check: "lists", found: /stripe_source\.prefetch .*list/ },
  },
  {
    name: "a folder as prefetch, of a disk whose key is not read",
    prepare: (place) => {
      source(place, 'type = "raw"\nimage_path = "image.raw"\nprefetch = "list"');
      mkdirSync(place.file("list"));
    },
    told: { subject: "stripe_source", check: "lists", found: /list is not a regular file/ },
  },
  {
    name: "another file at the place of a record",
    prepare: (place) => {
      imageToFetch(place, 'copy_on_read = true\nrecord = "list"');
      place.write("list", "mine");
    },
    told: { subject: "stripe_source", check: "lists", found: /record .*list: there is another/ },
  },
  {
    name: "a folder as record",
    prepare: (place) => {
      imageToFetch(place, 'copy_on_read = true\nrecord = "list"');
      mkdirSync(place.file("list"));
    },
    told: { subject: "stripe_source", check: "lists", found: /record .*list is not a regular/ },
  },
  {
    name: "an archive that is missing",
    prepare: (place) => source(place, 'type = "archive"\nstorage = "filesystem"\npath = "none"'),
    told: { subject: "stripe_source", check: "content", found: /archive folder .*none/ },
  },
  {
    name: "an archive whose key is in a pipe, and that is none",
    prepare: (place) => {
      const archive =
        'type = "archive"\nstorage = "filesystem"\npath = "a"\narchive_kek.ref = "kek"';
      source(place, `${archive}\n[secrets.kek]\nsource.file = "pipe"`);
      Bun.spawnSync(["mkfifo", "-m", "600", place.file("pipe")]);
      mkdirSync(place.file("a"));
    },
    told: { subject: "stripe_source", check: "archive", found: /a has no metadata\.json/ },
  },
  {
    name: "a stripe server that refuses connections",
    prepare: (place) => source(place, 'type = "remote"\naddress = "127.0.0.1:1"'),
    told: { subject: "stripe_source", check: "content", found: /127\.0\.0\.1:1.*ECONNREFUSED/ },
  },
  {
    name: "a stripe server that never answers",
    peer: async (place) => {
      const server = createServer(() => {});
      await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
      const address = server.address();
      const port = typeof address === "object" ? address?.port : undefined;
      source(place, `type = "remote"\naddress = "127.0.0.1:${port}"`);
      return { [Symbol.dispose]: () => void server.close() };
    },
    told: { subject: "stripe_source", check: "content", found: /127\.0\.0\.1:\d+/ },
  },
  {
    name: "an S3 service that is not there",
    prepare: (place) => source(place, s3At("http://127.0.0.1:1")),
    told: { subject: "stripe_source", check: "content", found: /127\.0\.0\.1:1: no connection/ },
  },
];

describe("trouble", () => {
  test.each([...TROUBLES])(
    "$name",
    async ({ prepare, peer, told }) => {
      using place = new DoctorPlace();
      prepare?.(place);
      using _ = await peer?.(place);
      const result = await place.examine();
      expect(result.exitCode).toBe(1);
      const { found, ...rest } = told;
      const matching = faultsOf(result).filter((each) => found.test(each.found));
      expect(matching.length > 0 ? matching[0] : faultsOf(result)).toMatchObject(rest);
      const names = faultsOf(result).map(({ subject, check }) => `${subject} ${check}`);
      expect(result.stderr).toContain("ubiblk: error E_DOCTOR: ");
      expect(result.stderr).toContain(names[0] ?? "nothing failed");
      expect(result.stderr.trimEnd().split("\n")).toHaveLength(1);
    },
    60_000,
  );
});

test("what a disk of which all is fetched does not need is no trouble", async () => {
  using place = new DoctorPlace();
  imageToFetch(place, 'prefetch = "none"');
  const sound = 'type = "raw"\nimage_path = "image.raw"';
  source(place, sound);
  expect(faultsOf(await place.examine())).toEqual([]);
  place.configure('metadata_path = "meta"');
  const made = Bun.spawnSync([EXECUTABLE, "init-metadata", "--force", "-f", place.config]);
  expect(made.exitCode).toBe(0);
  rmSync(place.file("image.raw"));
  source(place, `${sound}\nprefetch = "none"`);
  const result = await place.examine();
  expect(faultsOf(result)).toEqual([]);
  expect(checkOf(result, "stripe_source", "need")?.verdict).toBe("ok");
});
