/**
 * Every command and tool: what it is for, examples, exit codes. Help, completions and manual pages are made of
 * this and of each command's own flags. Plain data: a command's code is loaded only when it is named.
 */
import { ARCHIVE_TOOLS } from "./archive-tools.ts";
import { type CommandEntry, EXIT_OF_SERVICE, EXIT_OF_WORK } from "./command-entry.ts";
import { CONFIG_TOOLS } from "./config-tools.ts";
import { SECRET_TOOLS } from "./secret-tools.ts";

/**
 * In the order in which they are shown. One entry each:
 *
 *     name: {
 *       description: "what it does",
 *       examples: [["ubiblk name --flag value", "what that does"]],
 *       exitCodes: EXIT_OF_WORK,
 *       load: async (wrap) => wrap((await import("./name.ts")).default),
 *     },
 *
 * where `./name.ts` has a citty command definition as its default export. An entry with `tools` and without `load`
 * is a group: one of its tools has to be named.
 */
export const COMMANDS: Readonly<Record<string, CommandEntry>> = {
  init: {
    description: "Makes a disk that can be served at once",
    examples: [
      ["ubiblk init", "asks what you want"],
      ["ubiblk init --size 20G --dir vm1", "an empty, encrypted disk"],
      ["ubiblk init --size 20G --dir vm1 --base debian.raw --autofetch", "filled from an image"],
      ["ubiblk init --disk /dev/vg0/vm1 --dir vm1 --kek-file kek.pipe", "no key in a plain file"],
    ],
    exitCodes: EXIT_OF_WORK,
    mainFlags: [
      "size",
      "dir",
      "disk",
      "kek",
      "kek-file",
      "unencrypted",
      "base",
      "archive",
      "s3",
      "remote",
      "autofetch",
      "force",
      "json",
    ],
    load: async (wrap) => wrap((await import("./init.ts")).default),
  },
  vhost: {
    description: "Serves a disk to a virtual machine over vhost-user-blk",
    examples: [
      [
        "ubiblk vhost -f config.toml",
        "until SIGTERM or Ctrl-C; `ready` says that the socket is there",
      ],
      ["ubiblk vhost -f config.toml --log-level warn", "tells nothing of its life"],
    ],
    exitCodes: EXIT_OF_SERVICE,
    load: async (wrap) => wrap((await import("./vhost.ts")).default),
  },
  ublk: {
    description: "Serves a disk to this machine as a block device, over ublk",
    examples: [
      ["ubiblk ublk -f config.toml", "as /dev/ublkbN, until SIGTERM or Ctrl-C"],
      ["ubiblk ublk -f config.toml --device-symlink /run/ubiblk/disk", "with a name that stays"],
      ["ubiblk ublk --list", "devices of ubiblk on this machine"],
    ],
    exitCodes: { ...EXIT_OF_SERVICE, 0: "stopped by SIGTERM or SIGINT, or done" },
    load: async (wrap) => wrap((await import("./ublk.ts")).default),
  },
  "stripe-server": {
    description: "Serves the stripes of a disk or an archive to other hosts",
    examples: [
      [
        "ubiblk stripe-server -f config.toml --listen-config server.toml",
        "a disk that no backend uses",
      ],
      ["ubiblk stripe-server --archive archive.toml --listen-config server.toml", "an archive"],
    ],
    exitCodes: EXIT_OF_SERVICE,
    load: async (wrap) => wrap((await import("./stripe-server.ts")).default),
  },
  "stripe-shell": {
    description: "Looks at the stripes that a stripe server serves",
    examples: [
      ["ubiblk stripe-shell --server-config server.toml", "a prompt; `help` lists the commands"],
      [
        "ubiblk stripe-shell --server-config server.toml -c 'list; save 0 stripe0.raw'",
        "two commands",
      ],
    ],
    exitCodes: { ...EXIT_OF_WORK, 1: "no connection, or a command of -c failed" },
    load: async (wrap) => wrap((await import("./stripe-shell.ts")).default),
  },
  "init-metadata": {
    description: "Makes the metadata file of a disk with lazy stripes",
    examples: [
      ["ubiblk init-metadata -f config.toml", "stripes of 1 MiB, or as its source has them"],
      ["ubiblk init-metadata -f config.toml -s 13", "stripes of 4 MiB"],
      ["ubiblk init-metadata -f config.toml --grow", "after the disk was made larger"],
    ],
    exitCodes: EXIT_OF_WORK,
    load: async (wrap) => wrap((await import("./init-metadata.ts")).default),
  },
  "dump-metadata": {
    description: "Tells which stripes of a disk are fetched or written",
    examples: [
      ["ubiblk dump-metadata -f config.toml", "lists of stripes; the disk may be in use"],
      ["ubiblk dump-metadata -f config.toml --json", "counts and percentages too"],
    ],
    exitCodes: EXIT_OF_WORK,
    load: async (wrap) => wrap((await import("./dump-metadata.ts")).default),
  },
  archive: {
    description: "Writes a disk to an archive, and looks after archives",
    examples: [
      ["ubiblk archive -f config.toml --target-config target.toml --encrypt", "a new archive"],
      [
        "ubiblk archive -f config.toml --target-config target.toml -e --incremental",
        "what changed since",
      ],
      [
        "ubiblk archive -f config.toml --target-config target.toml -e --incremental --track-changes",
        "and reads only that, from the second time on",
      ],
      ["ubiblk archive verify --source archive.toml", "reads it all"],
    ],
    exitCodes: EXIT_OF_WORK,
    mainFlags: [
      "config",
      "target-config",
      "encrypt",
      "compression",
      "incremental",
      "resume",
      "json",
    ],
    load: async (wrap) => wrap((await import("./archive.ts")).default),
    tools: ARCHIVE_TOOLS,
  },
  scrub: {
    description: "Compares what a disk fetched from an archive with it",
    examples: [
      ["ubiblk scrub -f config.toml", "with the archive of its [stripe_source]"],
      ["ubiblk scrub -f config.toml --source archive.toml --bytes-per-second 50M", "gently"],
    ],
    exitCodes: { ...EXIT_OF_WORK, 0: "all is as it should be", 1: "something is not, or failed" },
    load: async (wrap) => wrap((await import("./scrub.ts")).default),
  },
  "export-archive": {
    description: "Writes the disk of an archive as a raw image",
    examples: [
      ["ubiblk export-archive --source archive.toml --target disk.raw", "appears when it is whole"],
      ["ubiblk export-archive --source archive.toml --target /dev/vg0/disk", "on a block device"],
    ],
    exitCodes: EXIT_OF_WORK,
    load: async (wrap) => wrap((await import("./export-archive.ts")).default),
  },
  xts: {
    description: "Enciphers or deciphers an image with the key of a disk",
    examples: [
      ["ubiblk xts -f config.toml disk.raw plain.raw", "deciphers"],
      ["ubiblk xts -f config.toml --action encode plain.raw disk.raw", "enciphers"],
      ["ubiblk xts -f config.toml --start 2048 --len 8 disk.raw part.raw", "4 KiB at 1 MiB"],
    ],
    exitCodes: { 0: "done", 1: "failed or interrupted; standard error says why", 2: "wrong usage" },
    load: async (wrap) => wrap((await import("./xts.ts")).default),
  },
  config: {
    description: "Checks configurations, and tells what can stand in one",
    examples: [
      ["ubiblk config check config.toml", "every mistake, then what the configuration says"],
      ["ubiblk config example > disk.toml", "all keys, each explained"],
    ],
    exitCodes: EXIT_OF_WORK,
    tools: CONFIG_TOOLS,
  },
  secret: {
    description: "Makes and encrypts the keys that a configuration names",
    examples: [
      ["ubiblk secret gen --kind xts-key --output disk.key", "a key for a disk"],
      ["ubiblk secret wrap --name xts_key --kek kek --input disk.key", "its envelope"],
    ],
    exitCodes: EXIT_OF_WORK,
    tools: SECRET_TOOLS,
  },
  doctor: {
    description: "Looks whether this machine and a disk are fit to serve",
    examples: [
      ["ubiblk doctor", "the machine: io_uring, ciphers and their speed, limits"],
      ["ubiblk doctor -f config.toml", "a disk as well, also while it is served"],
      ["ubiblk doctor -f config.toml --json --strict", "for a monitor"],
    ],
    exitCodes: { ...EXIT_OF_WORK, 0: "nothing failed", 1: "a check failed; the report says which" },
    load: async (wrap) => wrap((await import("./doctor.ts")).default),
  },
  top: {
    description: "Shows what running backends do, live",
    examples: [
      ["ubiblk top /run/ubiblk/disk1/rpc.sock", "a live view; q ends it"],
      ["ubiblk top --socket '/run/ubiblk/*/rpc.sock'", "of all backends of this host"],
      ["ubiblk top --once --json /run/ubiblk/disk1/rpc.sock", "one sample for a program"],
    ],
    exitCodes: { ...EXIT_OF_WORK, 0: "ended by its user, or all samples written" },
    load: async (wrap) => wrap((await import("./top.ts")).default),
  },
  rpc: {
    description: "Gives a running backend or stripe server one command",
    examples: [
      ["ubiblk rpc /run/ubiblk/disk1/rpc.sock status", "one line of JSON"],
      ["ubiblk rpc /run/ubiblk/disk1/rpc.sock resize", "after its file was made larger"],
      ["ubiblk rpc /run/ubiblk/disk1/rpc.sock set_log_level level=debug", "with what it needs"],
    ],
    exitCodes: { ...EXIT_OF_WORK, 1: "refused or failed; standard error says why" },
    load: async (wrap) => wrap((await import("./rpc-request.ts")).default),
  },
  metrics: {
    description: "Writes metrics of running programs, for Prometheus",
    examples: [
      ["ubiblk metrics /run/ubiblk/disk1/rpc.sock", "to standard output"],
      ["ubiblk metrics '/run/ubiblk/*/rpc.sock' --output ubiblk.prom", "for node_exporter"],
    ],
    exitCodes: { ...EXIT_OF_WORK, 1: "failed, or no socket answers" },
    load: async (wrap) => wrap((await import("./metrics.ts")).default),
  },
  bench: {
    description: "Measures or verifies the disk behind a vhost-user-blk socket",
    examples: [
      ["ubiblk bench --socket vhost.sock", "random reads of 4 KiB for ten seconds"],
      [
        "ubiblk bench --socket vhost.sock --workload verify",
        "writes it all, reads it back; destroys data",
      ],
    ],
    exitCodes: { ...EXIT_OF_WORK, 1: "failed, or data that is not as it was written" },
    mainFlags: [
      "socket",
      "workload",
      "block-size",
      "queue-depth",
      "queues",
      "time",
      "size",
      "pid",
      "json",
    ],
    load: async (wrap) => wrap((await import("./bench.ts")).default),
  },
  completions: {
    description: "Writes the completion script of a shell",
    examples: [
      ["ubiblk completions bash > /etc/bash_completion.d/ubiblk", "for all users"],
      ["ubiblk completions zsh > ~/.zfunc/_ubiblk", "in a folder of $fpath"],
      ["ubiblk completions fish > ~/.config/fish/completions/ubiblk.fish", "for one user"],
    ],
    exitCodes: EXIT_OF_WORK,
    load: async (wrap) =>
      wrap((await import("./completions.ts")).completionsOf({ commands: COMMANDS, links: LINKS })),
  },
};

/** Programs of the reference implementation: a link to the executable with one of these names is that command. */
export const LINKS: Readonly<Record<string, string>> = {
  "vhost-backend": "vhost",
  "ublk-backend": "ublk",
  "init-metadata": "init-metadata",
  "dump-metadata": "dump-metadata",
  xts: "xts",
  archive: "archive",
  "export-archive": "export-archive",
  "remote-stripe-server": "stripe-server",
  "remote-stripe-shell": "stripe-shell",
  "ubiblk-init": "init",
  ubitop: "top",
};
