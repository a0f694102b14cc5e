/**
 * Whole disks fetched from archives and over the network, beside what bounds them: the export of the same archive,
 * the same fetch from a raw image, and TLS alone between two C programs.
 */
import { mkdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { outputOf } from "../../scripts/command.ts";
import { backendCpuNs } from "../../src/bench/backend-cpu.ts";
import { EXECUTABLE, startUbiblk, writeDiskConfig } from "../support/backend.ts";
import {
  archiveTo,
  kekSection,
  makeArchivedDisk,
  mixedFile,
  timed,
  writeArchiveDocument,
} from "./archive-disk.ts";
import { command, fetchStatus, lazyFolder, MIB, STRIPE_BYTES, sparseFile } from "./lazy-disk.ts";
import { compareMedians } from "./lazy-result.ts";
import {
  median,
  type ResultLine,
  type Row,
  type RowOptions,
  type RowResult,
  shortNumber,
} from "./result.ts";
import type { DataFiles } from "./servers.ts";
import { IDLE_CLIENTS, StripeServer } from "./stripe-server.ts";

const ARCHIVE = {
  id: "archive-fetch",
  title: "lazy fetch of an archive, zstd and encrypted, MiB/s: ubiblk beside its export",
};
const REMOTE = {
  id: "remote-fetch",
  title: "lazy fetch over TLS-PSK, 4 connections, MiB/s: ubiblk beside a raw image and TLS alone",
};
const IDLE = {
  id: "remote-idle",
  title: `stripe server with ${IDLE_CLIENTS} idle clients`,
};
const CONNECTIONS = 4;
const FETCH_TIMEOUT_MS = 600_000;
const LOOK_MS = 5;
const IDLE_SECONDS = 5;
const IDLE_CPU_MS_MAX = 3;

export function remoteRows(files: DataFiles): readonly Row[] {
  return [
    { ...ARCHIVE, run: (options) => runArchive(files, options) },
    { ...REMOTE, run: (options) => runRemote(files, options) },
    { ...IDLE, run: (options) => runIdle(files, options) },
  ];
}

// --- internal ---

async function runArchive(files: DataFiles, options: RowOptions): Promise<RowResult> {
  const { folder, dataPath } = await mixedDisk(files);
  const path = join(folder, "objects");
  const disk = await makeArchivedDisk(folder, dataPath);
  await archiveTo({ disk, path, flags: ["--encrypt", "--compression", "zstd"] });
  const document = writeArchiveDocument({ folder, section: "archive", path });
  const source = `type = "archive"\nstorage = "filesystem"\npath = "${path}"\narchive_kek.ref = "kek"`;
  const ours: number[] = [];
  const peer: number[] = [];
  for (let turn = 0; turn < options.repetitions; turn++) {
    ours.push(await fetchSpeed({ folder, dataPath, source, sections: kekSection(folder) }));
    const target = join(folder, "exported.raw");
    const exporting = [EXECUTABLE, "export-archive", "--source", document, "--target", target];
    const { seconds } = await timed([...exporting, "--quiet"]);
    peer.push(files.sizeBytes / MIB / seconds);
    options.note(noteOf(ARCHIVE.id, turn, options, [ours, peer]));
  }
  const line = compareMedians({ what: "MiB/s", ours, peer, limit: { atLeast: 0.8 } });
  return { ...ARCHIVE, lines: [line], details: { ours, peer } };
}

async function runRemote(files: DataFiles, options: RowOptions): Promise<RowResult> {
  const { folder, dataPath } = await mixedDisk(files);
  const transfer = await buildTransfer(folder);
  await using server = await StripeServer.start(folder, dataPath);
  const ours: number[] = [];
  const raw: number[] = [];
  const tls: number[] = [];
  for (let turn = 0; turn < options.repetitions; turn++) {
    const source = `${server.source}\nconnections = ${CONNECTIONS}`;
    ours.push(await fetchSpeed({ folder, dataPath, source, sections: server.secrets }));
    raw.push(
      await fetchSpeed({ folder, dataPath, source: `type = "raw"\nimage_path = "${dataPath}"` }),
    );
    tls.push(await transferSpeed(transfer, files.sizeBytes / MIB));
    options.note(noteOf(REMOTE.id, turn, options, [ours, raw, tls]));
  }
  const isRawSlower = median(raw) < median(tls);
  const line = compareMedians({
    what: `MiB/s beside ${isRawSlower ? "a raw image" : "TLS alone"}, the slower one`,
    ours,
    peer: isRawSlower ? raw : tls,
    limit: { atLeast: 0.7 },
  });
  return { ...REMOTE, lines: [line], details: { ours, raw, tls } };
}

async function runIdle(files: DataFiles, options: RowOptions): Promise<RowResult> {
  const { folder, dataPath } = await mixedDisk(files);
  await using server = await StripeServer.start(folder, dataPath);
  using _clients = await server.attachIdleClients();
  const milliseconds: number[] = [];
  for (let turn = 0; turn < options.repetitions; turn++) {
    const before = backendCpuNs(server.pid);
    const beginMs = performance.now();
    await Bun.sleep(IDLE_SECONDS * 1000);
    const elapsedSeconds = (performance.now() - beginMs) / 1000;
    milliseconds.push((backendCpuNs(server.pid) - before) / 1e6 / elapsedSeconds);
  }
  const middle = median(milliseconds);
  const line: ResultLine = {
    what: "CPU, ms per second",
    ours: shortNumber(middle),
    peer: "",
    ratio: "",
    goal: `<= ${IDLE_CPU_MS_MAX}`,
    isMet: middle <= IDLE_CPU_MS_MAX,
  };
  return { ...IDLE, lines: [line], details: { milliseconds } };
}

interface MixedDisk {
  readonly folder: string;
  readonly dataPath: string;
}

async function mixedDisk(files: DataFiles): Promise<MixedDisk> {
  const folder = join(lazyFolder(files), "..", "archive");
  mkdirSync(folder, { recursive: true });
  const dataPath = await mixedFile(join(folder, "mixed.raw"), files.sizeBytes);
  await outputOf(["dd", `if=${dataPath}`, "of=/dev/null", "bs=1M"]);
  return { folder, dataPath };
}

interface Fetch extends MixedDisk {
  /** Lines of `[stripe_source]`. */
  readonly source: string;
  readonly sections?: string;
}

/** MiB/s of the disk from the release of the fetch to its last commit, into an encrypted disk whose file is new. */
async function fetchSpeed({ folder, dataPath, source, sections }: Fetch): Promise<number> {
  const place = join(folder, "fetch");
  const sizeBytes = statSync(dataPath).size;
  mkdirSync(place, { recursive: true });
  const target = sparseFile(join(place, "disk.raw"), sizeBytes);
  const lines = [
    `metadata_path = "metadata"\nrpc_socket = "rpc.sock"`,
    `[stripe_source]\n${source}\nautofetch = true`,
    sections ?? "",
  ];
  const files = writeDiskConfig({
    folder: place,
    dataPath: target,
    isEncrypted: true,
    moreConfig: lines.join("\n"),
  });
  await outputOf([EXECUTABLE, "init-metadata", "--force", "--config", files.configPath]);
  await using _backend = await startUbiblk(files);
  await command(place, "pause_fetch");
  await until(place, ({ inFlight }) => inFlight === 0);
  const { unfetched } = await fetchStatus(place);
  const beginMs = performance.now();
  await command(place, "resume_fetch");
  await until(place, (status) => status.unfetched === 0);
  return (unfetched * STRIPE_BYTES) / MIB / ((performance.now() - beginMs) / 1000);
}

async function until(
  folder: string,
  condition: (status: Awaited<ReturnType<typeof fetchStatus>>) => boolean,
): Promise<void> {
  const deadlineMs = performance.now() + FETCH_TIMEOUT_MS;
  for (;;) {
    const status = await fetchStatus(folder);
    if (status.retries > 0 || performance.now() > deadlineMs) {
      throw new Error(`the fetch does not go well: ${JSON.stringify(status)}`);
    }
    if (condition(status)) {
      return;
    }
    await Bun.sleep(LOOK_MS);
  }
}

async function buildTransfer(folder: string): Promise<string> {
  const program = join(folder, "tls-transfer");
  const source = join(import.meta.dir, "tls-transfer.c");
  const flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-o", program];
  await outputOf(["gcc", ...flags, source, "-lssl", "-lcrypto", "-lpthread"]);
  return program;
}

async function transferSpeed(program: string, messages: number): Promise<number> {
  const output: unknown = JSON.parse(await outputOf([program, `${CONNECTIONS}`, `${messages}`]));
  if (typeof output !== "object" || output === null || !("mibPerSecond" in output)) {
    throw new Error(`tls-transfer said ${JSON.stringify(output)}`);
  }
  return Number(output.mibPerSecond);
}

function noteOf(
  id: string,
  turn: number,
  { repetitions }: RowOptions,
  speeds: readonly (readonly number[])[],
): string {
  const last = speeds.map((samples) => Math.round(samples.at(-1) ?? 0));
  return `${id} ${turn + 1}/${repetitions}: ${last.join(", ")} MiB/s`;
}
