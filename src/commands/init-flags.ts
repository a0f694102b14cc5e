/** The flags of `ubiblk init`: those of the reference's ubiblk-init with their meaning, then ours. */
import { TuningSection } from "../config/schema.ts";

const { properties } = TuningSection;

/** What a number of `[tuning]` may be, as the schema of all configurations says. */
function tuningNumber(
  schema: { readonly minimum?: number; readonly maximum?: number; readonly default?: unknown },
  description: string,
) {
  const { minimum = 0, maximum = Number.MAX_SAFE_INTEGER } = schema;
  return {
    type: "string" as const,
    valueHint: "N",
    description: `${description} (default: ${String(schema.default)})`,
    integer: { minimum, maximum },
  };
}

const text = (valueHint: string, description: string) => ({
  type: "string" as const,
  valueHint,
  description,
});
const flag = (description: string) => ({ type: "boolean" as const, default: false, description });

export const INIT_FLAGS = {
  size: text("SIZE", "size of the disk, such as 20G, 1.5G, 500GiB or 100GB"),
  dir: text("FOLDER", "where everything is made (default: the working directory)"),
  config: {
    type: "string" as const,
    alias: "f",
    valueHint: "FILE",
    description:
      "where the configuration goes, with whole paths in it (default: config.toml there)",
  },
  disk: text("DEVICE", "a block device as the disk, instead of a file of --size"),
  preallocate: flag("reserve the room of the disk at once; else it is a sparse file"),
  "stripe-size": text("SIZE", "a power of two from 32K to 64M (default: as the source, else 1M)"),
  kek: flag("keep the key in the configuration, encrypted with a new KEK in a file"),
  "kek-file": text("FILE", "the same with a KEK that is there: a file, or better a pipe"),
  "kek-credential": text("NAME", "with --kek-file: the service gets it as this credential"),
  unencrypted: flag("no encryption: who has the disk's file can read it"),
  base: text("FILE", "fill the disk from an image: a file or block device"),
  archive: text("FOLDER", "fill the disk from an archive in a folder"),
  s3: text("BUCKET[/PREFIX]", "fill the disk from an archive in a bucket"),
  remote: text("HOST:PORT", "fill the disk from a stripe server"),
  autofetch: flag("fetch everything in the background"),
  "copy-on-read": flag("with --base: keep what is read, not only what is written"),
  "archive-kek": text("FILE", "KEK of the archive"),
  "s3-endpoint": text("URL", "a service other than AWS"),
  "s3-region": text("REGION", "region of the bucket"),
  "s3-path-style": flag("the bucket stands in the path, not in the host name"),
  "s3-ca-file": text("FILE", "certificate authorities to trust, PEM"),
  "s3-credentials": text(
    "PLACES",
    "where they are: a list of profile, instance, container and others",
  ),
  "s3-access-key-id": text("FILE", "or a file or pipe with the access key ID"),
  "s3-secret-access-key": text("FILE", "a file or pipe with the secret access key"),
  "s3-session-token": text("FILE", "a file or pipe with the session token"),
  "psk-identity": text("ID", "with --remote: identity of the key shared with the server"),
  psk: text("FILE", "with --remote: a file or pipe with that key"),
  "psk-encoding": {
    type: "enum" as const,
    options: ["plaintext", "base64"],
    description: "how that key is written (default: plaintext)",
  },
  "unencrypted-connection": flag("allow a server without a key, or an http service"),
  "num-queues": tuningNumber(properties.num_queues, "queues"),
  "queue-size": tuningNumber(properties.queue_size, "requests in flight on each, a power of two"),
  "seg-size-max": tuningNumber(properties.seg_size_max, "bytes of one segment of a request"),
  "seg-count-max": tuningNumber(properties.seg_count_max, "segments of a request"),
  "poll-timeout-us": tuningNumber(properties.poll_timeout_us, "longest look for more work, in µs"),
  "io-engine": {
    type: "enum" as const,
    options: ["io_uring", "sync"],
    description: "how the disk is read and written (default: io_uring)",
  },
  "write-through": flag("a write is on the disk before it is reported done"),
  cpus: text("LIST", "CPU of each queue's thread, such as 2,3 or 0-3"),
  "device-id": text("ID", "serial number that a guest sees, 20 bytes"),
  "track-written": flag("note in the metadata which stripes were written"),
  "vhost-socket": text("PATH", "relative ones start from --dir (default: vhost.sock)"),
  "vhost-socket-group": text("GROUP", "its members may connect to the vhost socket as well"),
  "rpc-socket": text("PATH", "likewise (default: rpc.sock)"),
  force: flag("replace a disk that is there, or use a device that holds something"),
  json: flag("tell what was made as JSON; no questions"),
};

/** Their values; what was not given is undefined or false. */
export type InitFlags = {
  readonly [Name in keyof typeof INIT_FLAGS]: (typeof INIT_FLAGS)[Name]["type"] extends "boolean"
    ? boolean
    : string | undefined;
};
