/** How each command is run in a folder of `SpoilableFolder`, and which files there it needs. */
import type { Spoiling } from "./spoiled-folder.ts";

export interface CommandRow {
  /** What follows the name of the command. */
  readonly argv: readonly string[];
  /** Its exit code when nothing is wrong, without anybody at a socket; undefined where the machine decides. */
  readonly exitCode?: number | undefined;
  /** It serves, and is ended as soon as this socket is there. */
  readonly serves?: string;
  /** A file of the folder that it reads as standard input. */
  readonly stdin?: string;
  /** What it needs. What is no failure there is listed. */
  readonly inputs: Readonly<Record<string, readonly Spoiling[]>>;
  /** What is wrong is told on standard output, and only that something is on standard error. */
  readonly isReport?: boolean;
  /** Arguments with which it writes into the folder "full". */
  readonly full?: readonly string[];
  /** It makes that folder when it is missing. */
  readonly makesFolder?: boolean;
  /** Lines of the folder's listing that change when nothing is wrong. */
  readonly changes?: RegExp;
  /** The socket that it connects to. */
  readonly peer?: string;
}

const ALL: readonly Spoiling[] = [];
/** What every document on the way to a disk needs. */
const DISK = { "disk.toml": ALL, key: ALL, "disk.raw": ["garbage"] } as const;
const STORED = {
  kek: ALL,
  "archive/metadata.json": ALL,
  "archive/stripe-mapping": ALL,
} as const;

const ARCHIVE = { "archive.toml": ALL, ...STORED } as const;

/** Rows by the path of a command, such as "archive verify". */
export const ROWS: Readonly<Record<string, readonly CommandRow[]>> = {
  init: [
    {
      argv: ["--size", "1M", "--dir", "new", "--base", "image.raw", "--kek-file", "kek"],
      exitCode: 0,
      inputs: { "image.raw": ["garbage"], kek: ALL },
      full: ["--size", "1M", "--dir", "full"],
      makesFolder: true,
    },
  ],
  vhost: [
    {
      argv: ["-f", "disk.toml"],
      serves: "vhost.sock",
      inputs: { ...DISK, meta: ALL, "image.raw": ["garbage"] },
    },
  ],
  // Without the driver the rest is not looked at.
  ublk: [{ argv: ["-f", "disk.toml"], exitCode: undefined, inputs: { "disk.toml": ALL } }],
  "stripe-server": [
    {
      argv: ["-f", "disk.toml", "--listen-config", "server.toml"],
      serves: "stripes.sock",
      inputs: { ...DISK, "server.toml": ALL, meta: ALL },
    },
    {
      argv: ["--archive", "archive.toml", "--listen-config", "server.toml"],
      serves: "stripes.sock",
      inputs: ARCHIVE,
    },
  ],
  "stripe-shell": [
    {
      argv: ["--server-config", "server.toml", "-c", "list"],
      exitCode: 1,
      inputs: { "server.toml": ALL },
      peer: "stripes.sock",
    },
  ],
  "init-metadata": [
    {
      argv: ["-f", "disk.toml"],
      exitCode: 0,
      inputs: { ...DISK, meta: ["missing", "empty"], "image.raw": ["garbage"] },
      full: ["-f", "full-disk.toml"],
      changes: /^meta /,
    },
  ],
  "dump-metadata": [
    { argv: ["-f", "disk.toml"], exitCode: 0, inputs: { "disk.toml": ALL, key: ALL, meta: ALL } },
  ],
  archive: [
    {
      argv: ["-f", "disk.toml", "--target-config", "target.toml", "--encrypt"],
      exitCode: 0,
      inputs: { ...DISK, "target.toml": ALL, kek: ALL, meta: ALL, "image.raw": ["garbage"] },
      full: ["-f", "disk.toml", "--target-config", "full-target.toml", "--encrypt"],
      makesFolder: true,
    },
  ],
  "archive verify": [{ argv: ["--source", "archive.toml"], exitCode: 0, inputs: ARCHIVE }],
  "archive inspect": [{ argv: ["--source", "archive.toml"], exitCode: 0, inputs: ARCHIVE }],
  "archive prune": [{ argv: ["--source", "archive.toml"], exitCode: 0, inputs: ARCHIVE }],
  "archive rekey": [
    {
      argv: ["--source", "archive.toml", "--target-config", "new-target.toml"],
      exitCode: 0,
      inputs: { ...ARCHIVE, "new-target.toml": ALL, kek2: ALL },
      changes: /^archive[/](metadata[.]json|stripe-mapping) /,
    },
  ],
  scrub: [
    {
      argv: ["-f", "scrub.toml"],
      exitCode: 0,
      inputs: { ...STORED, "scrub.toml": ALL, key: ALL, "disk.raw": ["garbage"], meta: ALL },
    },
  ],
  "export-archive": [
    {
      argv: ["--source", "archive.toml", "--target", "out.raw"],
      exitCode: 0,
      inputs: ARCHIVE,
      full: ["--source", "archive.toml", "--target", "full/out.raw"],
    },
  ],
  xts: [
    {
      argv: ["-f", "disk.toml", "disk.raw", "out.raw"],
      exitCode: 0,
      inputs: { "disk.toml": ALL, key: ALL, "disk.raw": ["garbage"] },
      full: ["-f", "disk.toml", "disk.raw", "full/out.raw"],
    },
  ],
  "config check": [
    { argv: ["disk.toml"], exitCode: 0, inputs: { "disk.toml": ALL, key: ALL }, isReport: true },
  ],
  "config example": [{ argv: [], exitCode: 0, inputs: {} }],
  "config schema": [{ argv: [], exitCode: 0, inputs: {} }],
  "secret gen": [
    {
      argv: ["--kind", "xts-key", "-o", "new.key"],
      exitCode: 0,
      inputs: {},
      full: ["--kind", "xts-key", "-o", "full/new.key"],
    },
  ],
  "secret wrap": [
    {
      argv: ["--name", "key", "--kek", "kek", "--input", "key"],
      exitCode: 0,
      inputs: { kek: ALL, key: ["garbage"] },
    },
    {
      argv: ["--name", "key", "-f", "target.toml"],
      exitCode: 0,
      stdin: "key",
      inputs: { "target.toml": ALL, kek: ALL },
    },
  ],
  "secret unwrap": [
    {
      argv: ["--name", "key", "--kek", "kek", "--input", "envelope", "-o", "out.key"],
      exitCode: 0,
      inputs: { kek: ALL, envelope: ALL },
      full: ["--name", "key", "--kek", "kek", "--input", "envelope", "-o", "full/out.key"],
    },
  ],
  "secret rewrap": [
    {
      argv: ["--name", "key", "--kek", "kek", "--new-kek", "kek2", "--input", "envelope"],
      exitCode: 0,
      inputs: { kek: ALL, kek2: ALL, envelope: ALL },
    },
  ],
  doctor: [
    { argv: ["-f", "disk.toml"], exitCode: 0, inputs: { "disk.toml": ALL }, isReport: true },
  ],
  top: [{ argv: ["--once", "rpc.sock"], exitCode: 1, inputs: {}, peer: "rpc.sock" }],
  rpc: [
    { argv: ["rpc.sock", "status", "--timeout", "2"], exitCode: 1, inputs: {}, peer: "rpc.sock" },
  ],
  metrics: [
    {
      argv: ["-f", "disk.toml"],
      exitCode: 1,
      inputs: { "disk.toml": ["pipe"] }, // which it waits for without a word
      peer: "rpc.sock",
      full: ["rpc.sock", "-o", "full/ubiblk.prom"],
    },
  ],
  bench: [
    {
      argv: ["--socket", "vhost.sock", "--timeout", "1"],
      exitCode: 1,
      inputs: {},
      peer: "vhost.sock",
    },
  ],
  completions: [{ argv: ["bash"], exitCode: 0, inputs: {} }],
};
