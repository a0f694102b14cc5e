/** `ubiblk doctor`: each kind of trouble with a disk, and the line that tells it. */
import { describe, expect, test } from "bun:test";
import { chmodSync, mkdirSync, rmSync, symlinkSync, truncateSync } from "node:fs";
import { createServer } from "node:net";
import {
  type Check,
  DoctorPlace,
  faultsOf,
  retarget,
  s3At,
  source,
} from "../support/doctor-place.ts";
import { servePeer } from "../support/rpc-peers.ts";

const MIB = 2 ** 20;

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
      found: /5242880 bytes, the disk only 4194304/,
    },
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
