/** A disk that is filled from an archive in a bucket of the S3 service of these tests. */
import { openStore } from "../../src/archive/open-store.ts";
import { buildArchive } from "./archive-builder.ts";
import { LazyDisk } from "./lazy-disk.ts";
import { type S3Server, TEST_KEY } from "./s3-server.ts";

export interface BucketDiskOptions {
  readonly server: S3Server;
  readonly bytes: number;
  readonly stripeSectors: number;
  /** Left out: the server's own. */
  readonly port?: number;
  /** Lines of `[stripe_source]`. */
  readonly source?: string;
}

const KEK = Uint8Array.from({ length: 32 }, (_, i) => 255 - i);

export async function bucketDisk(options: BucketDiskOptions): Promise<LazyDisk> {
  const { server, bytes, stripeSectors, port = server.port, source = "" } = options;
  const lines = [
    `type = "archive"\nstorage = "s3"\nbucket = "${server.bucket}"\nprefix = "a"`,
    `region = "${TEST_KEY.region}"\nendpoint = "http://127.0.0.1:${port}"`,
    `access_key_id.ref = "id"\nsecret_access_key.ref = "secret"\narchive_kek.ref = "kek"`,
  ];
  const secrets = ["kek", "id", "secret"].map(
    (name) => `[secrets.${name}]\nsource.file = "${name}"`,
  );
  const disk = new LazyDisk({
    diskBytes: bytes,
    imageBytes: bytes,
    isEncrypted: true,
    origin: lines.join("\n"),
    source,
    sections: secrets.join("\n"),
  });
  const text = (value: string) => new TextEncoder().encode(value);
  disk.files.write("kek", KEK);
  disk.files.write("id", text(TEST_KEY.accessKeyId));
  disk.files.write("secret", text(TEST_KEY.secretAccessKey));
  await using store = await openStore(server.description({ prefix: "a/" }));
  const archive = { stripeSectors, image: disk.image, isEncrypted: true, kek: KEK };
  await buildArchive(store, archive);
  return disk;
}
