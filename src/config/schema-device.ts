/** The sections of a device document that describe the disk and how it is served. */
import { Type } from "@sinclair/typebox";
import { metricsKeys } from "./schema-metrics.ts";
import {
  closed,
  flag,
  keyOf,
  ours,
  path,
  socketGroup,
  socketMode,
  socketOwner,
  UINT32_MAX,
} from "./schema-values.ts";

export const DeviceSection = Type.Object(
  {
    data_path: path({
      description:
        "File or block device that holds the disk, a multiple of 512 bytes. A device that is mounted is refused.",
      examples: ["/var/lib/ubiblk/vm1/disk.raw"],
    }),
    metadata_path: Type.Optional(
      path({
        description:
          "File that notes the state of each stripe; init-metadata makes it. With it the disk is lazy, and may have a [stripe_source].",
        examples: ["/var/lib/ubiblk/vm1/disk.meta"],
      }),
    ),
    vhost_socket: Type.Optional(
      path({
        description: "Unix socket at which `ubiblk vhost` waits for the virtual machine monitor.",
        examples: ["/run/ubiblk/vm1/vhost.sock"],
      }),
    ),
    vhost_socket_mode: socketMode(),
    vhost_socket_owner: socketOwner(),
    vhost_socket_group: socketGroup(),
    rpc_socket: Type.Optional(
      path({
        description: "Unix socket for status, statistics and commands. Absent: there is none.",
        examples: ["/run/ubiblk/vm1/rpc.sock"],
      }),
    ),
    rpc_socket_mode: socketMode(),
    rpc_socket_owner: socketOwner(),
    rpc_socket_group: socketGroup(),
    device_id: Type.String({
      default: "ubiblk",
      description: "Serial number of the disk. A guest sees its first 20 bytes.",
    }),
    track_written: flag("Notes in the metadata which stripes were written. Needs metadata_path."),
    read_only: flag("The guest gets a disk that it cannot write.", ours),
    ...metricsKeys("/run/ubiblk/vm1/metrics.sock"),
  },
  { ...closed, description: "The disk that is served." },
);

export const TuningSection = Type.Object(
  {
    num_queues: Type.Integer({
      minimum: 1,
      maximum: 63,
      default: 1,
      description: "How many queues a guest may use. Each has a thread of its own.",
    }),
    queue_size: Type.Integer({
      minimum: 1,
      maximum: 32768,
      default: 64,
      why: "a virtqueue and an io_uring have 32768 entries at most",
      description:
        "How many requests each queue works on at a time, a power of two. With ublk at most 4096.",
    }),
    seg_size_max: Type.Integer({
      minimum: 1,
      maximum: 1 << 20,
      default: 65536,
      description: "Largest segment of a request, in bytes, that a guest is told to send.",
    }),
    seg_count_max: Type.Integer({
      minimum: 1,
      maximum: 256,
      default: 4,
      description: "How many segments of data a guest is told to put into a request at most.",
    }),
    cpus: Type.Optional(
      Type.Array(Type.Integer({ minimum: 0, maximum: UINT32_MAX }), {
        description: "The CPU that the thread of each queue is pinned to, one number a queue.",
        examples: [[0]],
      }),
    ),
    poll_timeout_us: Type.Integer({
      minimum: 0,
      maximum: 10_000_000,
      default: 1000,
      description:
        "How long a queue looks for more work before it sleeps, in microseconds; 100 of them at most are used. 0: it sleeps at once.",
    }),
    io_engine: Type.Union([Type.Literal("io_uring"), Type.Literal("sync")], {
      default: "io_uring",
      description:
        "How the disk is read and written. With sync a request that takes long holds up the others of its queue.",
    }),
    write_through: flag("A write is on the disk before it is reported as done."),
    disable_discard: flag("DISCARD is not offered to the guest.", ours),
    overdue_request_ms: Type.Integer({
      minimum: 0,
      maximum: 86_400_000,
      default: 30_000,
      description:
        "A request that takes longer, in milliseconds, is told in the log, in `status` and in the metrics. 0: none is.",
      ...ours,
    }),
    ublk_max_io_bytes: Type.Integer({
      minimum: 4096,
      maximum: 32 * 2 ** 20,
      default: 2 ** 20,
      description:
        "Largest request of a ublk device in bytes, a multiple of 4096. Other front ends ignore it.",
      ...ours,
    }),
  },
  { ...closed, default: {}, description: "How the disk is served: queues, limits and threads." },
);

export const EncryptionSection = Type.Object(
  {
    xts_key: keyOf(64, {
      description:
        "Key of the disk and its metadata, exactly 64 bytes: the data key, then the tweak key.",
      examples: ["xts_key"],
    }),
  },
  { ...closed, description: "Encrypts the disk with AES-256-XTS." },
);
