/** Archives in a directory beside the usual tools for the same work, each to the end of a sync. */
import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { outputOf } from "../../scripts/command.ts";
import { EXECUTABLE } from "../support/backend.ts";
import {
  type ArchivedDisk,
  archiveTo,
  makeArchivedDisk,
  mixedFile,
  type Timed,
  timed,
  timedScript,
  writeArchiveDocument,
} from "./archive-disk.ts";
import { lazyFolder, MIB } from "./lazy-disk.ts";
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

const ZSTD = {
  id: "archive-zstd",
  title: "archive with zstd level 3, MiB/s: ubiblk beside zstd -3 -T2",
};
const ENCRYPTED = {
  id: "archive-encrypted",
  title: "archive encrypted, MiB/s: ubiblk beside cp, then sha256sum",
};
const EXPORT = { id: "archive-export", title: "export, MiB/s: ubiblk beside zstd -d" };
const PEAK_MIB_MAX = 200;

export function archiveRows(files: DataFiles): readonly Row[] {
  return [
    { ...ZSTD, run: (options) => runZstd(files, options) },
    { ...ENCRYPTED, run: (options) => runEncrypted(files, options) },
    { ...EXPORT, run: (options) => runExport(files, options) },
  ];
}

// --- internal ---

interface Work {
  readonly disk: ArchivedDisk;
  readonly dataPath: string;
  readonly archivePath: string;
  readonly peerPath: string;
  readonly sizeBytes: number;
}

async function runZstd(files: DataFiles, options: RowOptions): Promise<RowResult> {
  const work = await workIn(files);
  const { ours, peer } = await inTurns(options, ZSTD.id, {
    ours: () => archived(work, ["--compression", "zstd", "--zstd-level", "3"]),
    peer: () =>
      timedScript(`zstd -3 -T2 -q -f '${work.dataPath}' -o '${work.peerPath}'`, work.disk.folder),
  });
  return resultOf(ZSTD, work, { ours, peer, atLeast: 0.85 });
}

async function runEncrypted(files: DataFiles, options: RowOptions): Promise<RowResult> {
  const work = await workIn(files);
  const { ours, peer } = await inTurns(options, ENCRYPTED.id, {
    ours: () => archived(work, ["--encrypt"]),
    peer: () =>
      timedScript(
        `cp --sparse=never '${work.dataPath}' '${work.peerPath}'\nsha256sum '${work.peerPath}' >/dev/null`,
        work.disk.folder,
      ),
  });
  return resultOf(ENCRYPTED, work, { ours, peer, atLeast: 0.8 });
}

async function runExport(files: DataFiles, options: RowOptions): Promise<RowResult> {
  const work = await workIn(files);
  const { disk, archivePath: path } = work;
  await archiveTo({ disk, path, flags: ["--compression", "zstd"] });
  const compressed = join(disk.folder, "mixed.zst");
  await outputOf(["zstd", "-3", "-T2", "-q", "-f", work.dataPath, "-o", compressed]);
  const source = writeArchiveDocument({ folder: disk.folder, section: "archive", path });
  const { ours, peer } = await inTurns(options, EXPORT.id, {
    ours: () => exported(work, source),
    peer: () => timedScript(`zstd -d -q -f '${compressed}' -o '${work.peerPath}'`, disk.folder),
  });
  await outputOf(["cmp", work.dataPath, join(disk.folder, "exported.raw")]);
  return resultOf(EXPORT, work, { ours, peer, atLeast: 0.85 });
}

async function workIn(files: DataFiles): Promise<Work> {
  const folder = join(lazyFolder(files), "..", "archive");
  mkdirSync(folder, { recursive: true });
  const { sizeBytes } = files;
  const dataPath = await mixedFile(join(folder, "mixed.raw"), sizeBytes);
  const disk = await makeArchivedDisk(folder, dataPath);
  await outputOf(["dd", `if=${dataPath}`, "of=/dev/null", "bs=1M"]);
  return {
    disk,
    dataPath,
    archivePath: join(folder, "objects"),
    peerPath: join(folder, "peer.out"),
    sizeBytes,
  };
}

/** With the same sync behind it as its peers. */
async function archived(work: Work, flags: readonly string[]): Promise<Timed> {
  const { disk, archivePath: path } = work;
  const archive = await archiveTo({ disk, path, flags });
  const sync = await timed(["sync", "-f", disk.folder]);
  return { ...archive, seconds: archive.seconds + sync.seconds };
}

async function exported(work: Work, source: string): Promise<Timed> {
  const target = join(work.disk.folder, "exported.raw");
  rmSync(target, { force: true });
  const command = [EXECUTABLE, "export-archive", "--source", source, "--target", target];
  const made = await timed([...command, "--quiet"]);
  const sync = await timed(["sync", "-f", work.disk.folder]);
  return { ...made, seconds: made.seconds + sync.seconds };
}

interface Samples {
  readonly ours: readonly Timed[];
  readonly peer: readonly Timed[];
}

/** Both in turns, so that what else the machine does meets both. */
async function inTurns(
  options: RowOptions,
  id: string,
  run: { readonly ours: () => Promise<Timed>; readonly peer: () => Promise<Timed> },
): Promise<Samples> {
  const ours: Timed[] = [];
  const peer: Timed[] = [];
  for (let turn = 0; turn < options.repetitions; turn++) {
    ours.push(await run.ours());
    peer.push(await run.peer());
    const seconds = [ours, peer].map((samples) => samples.at(-1)?.seconds.toFixed(2));
    options.note(`${id} ${turn + 1}/${options.repetitions}: ${seconds.join(" s, peer ")} s`);
  }
  return { ours, peer };
}

function resultOf(
  row: Pick<RowResult, "id" | "title">,
  work: Work,
  samples: Samples & { readonly atLeast: number },
): RowResult {
  const { ours, peer, atLeast } = samples;
  const speeds = (times: readonly Timed[]) =>
    times.map(({ seconds }) => work.sizeBytes / MIB / seconds);
  const speed = compareMedians({
    what: "MiB/s",
    ours: speeds(ours),
    peer: speeds(peer),
    limit: { atLeast },
  });
  return { ...row, lines: [speed, peakLine(ours)], details: { ours, peer } };
}

function peakLine(ours: readonly Timed[]): ResultLine {
  const peak = median(ours.map(({ peakMib }) => peakMib));
  return {
    what: "peak memory, MiB",
    ours: shortNumber(peak),
    peer: "",
    ratio: "",
    goal: `<= ${PEAK_MIB_MAX}`,
    isMet: peak <= PEAK_MIB_MAX,
  };
}
