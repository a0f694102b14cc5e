/** What `ubiblk init` tells: what will be made, what was made, and how to go on. */
import { stripeBytes } from "../formats/metadata.ts";
import type { DiskRequest, RequestedKey, RequestedSource } from "../init/disk-request.ts";
import type { MadeDisk } from "../init/make-disk.ts";
import { oneLine } from "../log.ts";
import { quantityText } from "./quantity-text.ts";

/** For the question whether to go on. */
export function planText(request: DiskRequest): string {
  const { medium, source, stripeShift } = request;
  const disk =
    medium.kind === "device"
      ? `the block device ${medium.path}`
      : `disk.raw, ${quantityText(medium.sizeBytes)}, ${medium.isPreallocated ? "preallocated" : "sparse"}`;
  const stripes =
    stripeShift === undefined
      ? ""
      : `, in stripes of ${quantityText(stripeBytes({ stripeShift }))}`;
  const rows: [string, string][] = [
    ["folder", request.folder],
    ["disk", `${disk}${stripes}`],
    ["filled from", sourceText(source)],
    ["encryption", keyText(request.key)],
    ["queues", String(request.tuning.num_queues)],
  ];
  return table(rows);
}

/** For people: what is there, then the commands to run. */
export function madeText(made: MadeDisk): string {
  const stripes = `${made.stripeCount} stripes of ${quantityText(made.stripeBytes)}, ${made.sourceStripes} in the source`;
  const rows: [string, string][] = [
    [
      made.dataPath,
      `${quantityText(made.sizeBytes)}, ${made.isEncrypted ? "encrypted" : "not encrypted"}`,
    ],
    [made.metadataPath, stripes],
    ...keyRows(made),
    [made.configPath, dangersText(made.dangers)],
  ];
  const next = nextCommands(made).map((command) => `  ${command}\n`);
  return `made:\n${table(rows)}next:\n${next.join("")}`;
}

/** For machines, in one line. */
export function madeJson(made: MadeDisk): string {
  const facts = {
    config: made.configPath,
    folder: made.folder,
    data: made.dataPath,
    size_bytes: made.sizeBytes,
    metadata: made.metadataPath,
    stripe_bytes: made.stripeBytes,
    stripe_count: made.stripeCount,
    source_stripes: made.sourceStripes,
    encrypted: made.isEncrypted,
    key_file: made.keyPath ?? null,
    vhost_socket: made.vhostSocket,
    rpc_socket: made.rpcSocket,
    queues: made.queues,
    dangers: made.dangers,
    replaced: made.replaced,
    warnings: made.warnings,
    next: nextCommands(made),
  };
  return `${JSON.stringify(facts)}\n`;
}

/** Serves, attaches a virtual machine, watches. */
function nextCommands(made: MadeDisk): readonly string[] {
  const socket = made.vhostSocket.replaceAll(",", ",,"); // QEMU's way to write a comma
  return [
    serveCommand(made),
    "qemu-system-x86_64 -M q35,memory-backend=mem -m 1G" +
      " -object memory-backend-memfd,id=mem,size=1G,share=on" +
      ` -chardev ${quoted(`socket,id=disk0,path=${socket},reconnect=1`)}` +
      ` -device vhost-user-blk-pci,chardev=disk0,num-queues=${made.queues}`,
    `ubiblk top ${quoted(made.rpcSocket)}`,
  ];
}

// --- internal ---

/** A configuration where the units look for it is served by one of them, whose user has to own what it serves. */
function serveCommand(made: MadeDisk): string {
  const { configPath, dataPath, metadataPath, kekCredential } = made;
  const [, name] = /^\/etc\/ubiblk\/([\w.:-]+)\.toml$/.exec(configPath) ?? [];
  if (name === undefined) {
    const serve = `ubiblk vhost --config ${quoted(configPath)}`;
    return kekCredential === undefined
      ? serve
      : `systemd-run --collect -p ${quoted(credentialSetting(kekCredential))} ${serve}`;
  }
  const disk = dataPath.startsWith("/dev/") ? [] : [quoted(dataPath)];
  const paths = [configPath, quoted(metadataPath), ...disk].join(" ");
  return `chown ubiblk: ${paths} && systemctl enable --now ubiblk-vhost@${name}.service`;
}

/** As a unit has it. */
function credentialSetting({ name, path }: NonNullable<MadeDisk["kekCredential"]>): string {
  return `LoadCredential=${name}:${path}`;
}

function keyRows({ keyPath, kekCredential }: MadeDisk): [string, string][] {
  if (kekCredential !== undefined) {
    const need = `the KEK: a service that serves the disk needs ${credentialSetting(kekCredential)}`;
    return [[kekCredential.path, need]];
  }
  const what = keyPath?.endsWith("/kek") ? "the KEK" : "the key";
  const advice = `${what}: keep a copy in another place, without it the disk cannot be read`;
  return keyPath === undefined ? [] : [[keyPath, advice]];
}

function table(rows: readonly [string, string][]): string {
  const shown = rows.map(([name, value]) => [oneLine(name), oneLine(value)] as const);
  const width = Math.max(...shown.map(([name]) => name.length));
  return shown.map(([name, value]) => `  ${name.padEnd(width)}  ${value}\n`).join("");
}

function dangersText(dangers: readonly string[]): string {
  return dangers.length === 0
    ? "the configuration"
    : `the configuration, with ${dangers.join(", ")}`;
}

function keyText(key: RequestedKey): string {
  switch (key.kind) {
    case "none":
      return "none";
    case "file":
      return "a new key in the file xts_key";
    case "new-kek":
      return "a new key, encrypted with a new KEK in the file kek";
    case "given-kek":
      return `a new key, encrypted with the KEK in ${key.path}`;
  }
}

function sourceText(source: RequestedSource): string {
  switch (source.kind) {
    case "none":
      return "nothing: it is empty";
    case "raw":
      return `the image ${source.path}`;
    case "archive":
      return source.store.kind === "folder"
        ? `the archive in ${source.store.path}`
        : `the archive in the bucket ${[source.store.bucket, source.store.prefix].join("/")}`;
    case "remote":
      return `the stripe server at ${source.address}`;
  }
}

/** As a shell takes it for one word: where it would act on a terminal, as bash, zsh and POSIX of 2024 do. */
function quoted(word: string): string {
  if (/\p{Cc}/u.test(word)) {
    return `$'${word.replace(/[\\']/g, "\\$&").replace(/\p{Cc}/gu, asOctal)}'`;
  }
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

function asOctal(character: string): string {
  const bytes = [...new TextEncoder().encode(character)];
  return bytes.map((byte) => `\\${byte.toString(8).padStart(3, "0")}`).join("");
}
