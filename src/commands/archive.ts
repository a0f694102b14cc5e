/** `ubiblk archive`: writes a disk to an archive. */
import { existsSync } from "node:fs";
import { dirname, isAbsolute, join, resolve } from "node:path";
import { defineCommand } from "citty";
import type { StoreDescription } from "../archive/object-store.ts";
import { describeStore, openStore } from "../archive/open-store.ts";
import {
  type DeviceConfig,
  loadDeviceConfig,
  loadTargetConfig,
  resolveSecrets,
  type TargetConfig,
} from "../config/index.ts";
import { StoreClaim } from "../copy/archive-claim.ts";
import type { RunParameters } from "../copy/archive-run-file.ts";
import {
  planTarget,
  type TargetMode,
  type TargetNeeds,
  type TargetPlan,
} from "../copy/archive-target.ts";
import { ArchivedDisk } from "../copy/archived-disk.ts";
import { type ArchiveSummary, makeArchive, planSummary, planWork } from "../copy/make-archive.ts";
import { UbiError } from "../errors.ts";
import type { Compression } from "../formats/archive-metadata.ts";
import { log, quietLog } from "../log.ts";
import { integerArgument } from "./arguments.ts";
import { hardenOrWarn } from "./hardening.ts";
import { interruptible } from "./interruption.ts";
import { quantityText } from "./quantity-text.ts";
import { StatisticsFile } from "./statistics-file.ts";
import { TransferProgress } from "./transfer-progress.ts";

export default defineCommand({
  meta: {
    name: "archive",
    description:
      "Writes a disk to an archive: a folder or a bucket. The disk must not be in use. What was written by a run " +
      "that failed is used again with --resume",
  },
  args: {
    config: {
      type: "string",
      alias: "f",
      required: true,
      valueHint: "FILE",
      description: "device configuration with metadata_path",
    },
    "target-config": {
      type: "string",
      required: true,
      valueHint: "FILE",
      description: "configuration with [target]",
    },
    encrypt: {
      type: "boolean",
      alias: "e",
      default: false,
      description: "encipher stripes and their map with a key of the archive's own",
    },
    compression: {
      type: "enum",
      options: ["none", "zstd"],
      default: "none",
      description: "how stripes are compressed",
    },
    "zstd-level": {
      type: "string",
      valueHint: "N",
      description: "1 to 22 (default: 3); with --compression zstd",
      integer: { minimum: 1, maximum: 22 },
    },
    stats: {
      type: "string",
      valueHint: "FILE",
      description: "write the archive's size and the disk's to FILE, as JSON, when all is done",
    },
    resume: {
      type: "boolean",
      default: false,
      description: "go on with a run that was cut off, when there is one",
    },
    incremental: {
      type: "boolean",
      default: false,
      description: "bring the archive that is there up to date: only what changed is written",
    },
    replace: {
      type: "boolean",
      default: false,
      description: "replace the archive that is there, and write all objects",
    },
    "track-changes": {
      type: "boolean",
      default: false,
      description:
        "note the archive in the metadata of the disk; with --incremental read only what was written since the noted one",
    },
    "take-over": {
      type: "string",
      valueHint: "RUN",
      description: "a run on another machine that has ended for sure, as the refusal names it",
    },
    "dry-run": {
      type: "boolean",
      default: false,
      description: "check everything and tell what would be done; read and write no stripe",
    },
    quiet: { type: "boolean", default: false, description: "tell nothing but errors and warnings" },
    json: { type: "boolean", default: false, description: "tell events on standard output" },
  },
  run: ({ args }) =>
    archive({
      configPath: args.config,
      targetConfigPath: args["target-config"],
      isEncrypted: args.encrypt,
      compression: compressionOf(args.compression, integerArgument(args["zstd-level"])),
      statsPath: args.stats,
      mode: modeOf(args),
      isChangeTracked: args["track-changes"],
      takeOver: args["take-over"],
      isDryRun: args["dry-run"],
      isQuiet: args.quiet,
      isJson: args.json,
    }),
});

// --- internal ---

const ZSTD_LEVEL_DEFAULT = 3;

interface ArchiveOptions {
  readonly configPath: string;
  readonly targetConfigPath: string;
  readonly isEncrypted: boolean;
  readonly compression: Compression;
  readonly statsPath: string | undefined;
  readonly mode: TargetMode;
  readonly isChangeTracked: boolean;
  readonly takeOver: string | undefined;
  readonly isDryRun: boolean;
  readonly isQuiet: boolean;
  readonly isJson: boolean;
}

function compressionOf(name: string, level: number | undefined): Compression {
  if (name === "zstd") {
    return { kind: "zstd", level: level ?? ZSTD_LEVEL_DEFAULT };
  }
  if (level !== undefined) {
    log.warn("--zstd-level is of no use without --compression zstd: nothing is compressed");
  }
  return { kind: "none" };
}

function modeOf(args: Readonly<Record<"resume" | "incremental" | "replace", boolean>>): TargetMode {
  const modes = (["resume", "incremental", "replace"] as const).filter((name) => args[name]);
  if (modes.length > 1) {
    throw new UbiError("E_USAGE", `--${modes.join(" and --")}: give one of them`);
  }
  return modes[0] ?? "new";
}

async function archive(options: ArchiveOptions): Promise<void> {
  hardenOrWarn();
  if (options.isQuiet) {
    quietLog();
  }
  const targetConfig = await loadTargetConfig(options.targetConfigPath);
  const config = await loadDeviceConfig(options.configPath, { require: ["metadata_path"] });
  checkDangers(config, targetConfig, options);
  tellPlace(targetConfig, options.targetConfigPath);
  using statistics =
    options.statsPath === undefined ? undefined : StatisticsFile.open(options.statsPath);
  await interruptible("the archive", async (signal) => {
    await using disk = await ArchivedDisk.open(config, { signal });
    using secrets = await resolveSecrets(targetConfig, ["target"], signal);
    const { archiveKek } = targetConfig.target;
    const kek = archiveKek === undefined ? undefined : secrets.get(archiveKek).bytes;
    const role = options.isDryRun ? "read" : "write";
    using store = await describeStore(targetConfig.target, secrets, role, signal);
    await archiveTo({ disk, target: store.description, kek, signal, statistics }, options);
  });
}

interface Work {
  readonly disk: ArchivedDisk;
  readonly target: StoreDescription;
  readonly kek: Uint8Array | undefined;
  readonly signal: AbortSignal;
  readonly statistics: StatisticsFile | undefined;
}

async function archiveTo(work: Work, options: ArchiveOptions): Promise<void> {
  const { disk, target, kek, signal } = work;
  const { mode, compression, isEncrypted } = options;
  const parameters: RunParameters = {
    stripeSectors: disk.stripeSectors,
    compression,
    isEncrypted,
  };
  using progress = new TransferProgress({ label: "archive", ...options });
  if (options.isDryRun) {
    const summary = await dryRun(work, { mode, parameters, kek, signal }, options);
    progress.done(`would archive ${planText(summary)}`, factsOf(summary, true));
    return;
  }
  const onProgress = progress.show.bind(progress);
  const summary = await makeArchive(disk, {
    mode,
    parameters,
    kek,
    target,
    signal,
    takeOver: options.takeOver,
    isChangeTracked: options.isChangeTracked,
    onProgress,
  });
  warnOverlong(summary, options);
  work.statistics?.write({
    physical_size_bytes: physicalBytes(summary),
    logical_size_bytes: summary.diskBytes,
  });
  const left = summary.leavesObjects
    ? "; objects that it does not need may be left: archive prune removes them"
    : "";
  progress.done(`archived ${textOf(summary)}${left}`, factsOf(summary, false));
}

/** Looks whether a run would be refused, and what it would read. */
async function dryRun(
  { disk, target, signal }: Work,
  needs: TargetNeeds,
  { takeOver, isChangeTracked }: Pick<ArchiveOptions, "takeOver" | "isChangeTracked">,
): Promise<ArchiveSummary> {
  const plan = await planAt(target, needs, takeOver);
  const { left } = planWork(disk, plan?.current, isChangeTracked);
  if (left.sourceStripes > 0) {
    await disk.openSource(() => {}, signal); // nothing is read, so nothing waits for its threads
  }
  return { ...planSummary(disk, left), leavesObjects: plan?.leavesObjects === true };
}

/** Undefined for a folder that is not there yet, which a run would make. */
async function planAt(
  target: StoreDescription,
  needs: TargetNeeds,
  takeOver: string | undefined,
): Promise<TargetPlan | undefined> {
  if (target.kind === "filesystem" && !existsSync(target.path)) {
    return undefined;
  }
  await using store = await openStore(target);
  const claim = await StoreClaim.open(store, { takeOver, signal: needs.signal, isDry: true });
  return await planTarget(claim, needs);
}

function checkDangers(
  config: DeviceConfig,
  { target, dangerZone }: TargetConfig,
  options: ArchiveOptions,
): void {
  const isAllowed = (flag: "allowPlainArchive" | "allowArchiveKeysInClear") =>
    dangerZone.enabled && dangerZone[flag];
  if (config.encryption !== undefined && !options.isEncrypted && !isAllowed("allowPlainArchive")) {
    throw new UbiError(
      "E_CONFIG_DANGER",
      `${options.targetConfigPath}: the disk is encrypted and its archive would not be; give --encrypt, or set ` +
        "danger_zone.enabled with danger_zone.allow_plain_archive",
    );
  }
  if (target.archiveKek !== undefined) {
    return;
  }
  if (options.isEncrypted && !isAllowed("allowArchiveKeysInClear")) {
    throw new UbiError(
      "E_CONFIG_DANGER",
      `${options.targetConfigPath}: without target.archive_kek the archive's key would lie beside its data in the ` +
        "clear; add it, or set danger_zone.enabled with danger_zone.allow_archive_keys_in_clear",
    );
  }
  log.warn("without target.archive_kek anybody who can write to the archive can forge it", {
    target: options.targetConfigPath,
  });
}

/**
 * Paths of other documents start from the document's folder; this one from the working directory, as a warning of
 * the document says. Where that looks like a mistake it is said once more.
 */
function tellPlace({ target }: TargetConfig, configPath: string): void {
  if (target.storage !== "filesystem" || isAbsolute(target.path)) {
    return;
  }
  const place = resolve(target.path);
  const beside = join(dirname(resolve(configPath)), target.path);
  if (!existsSync(place) && existsSync(beside)) {
    log.warn("target.path starts from the working directory, but is there beside the document", {
      used: place,
      there_is_also: beside,
    });
  }
}

function warnOverlong(
  { overlongObjects, objectsWritten }: ArchiveSummary,
  options: ArchiveOptions,
): void {
  if (overlongObjects > 0 && options.isEncrypted) {
    log.warn(
      "zstd makes some stripes longer than they are; their last sector shares its tweak with the next stripe",
      {
        objects: overlongObjects,
        of: objectsWritten,
        advice: "use --compression none for data that cannot be compressed",
      },
    );
  }
}

function physicalBytes({ objectBytesWritten, manifestBytes }: ArchiveSummary): number {
  return objectBytesWritten + manifestBytes;
}

function planText({
  diskBytes,
  fromDisk,
  fromSource,
  unchangedStripes,
  stripes,
}: ArchiveSummary): string {
  const skipped = stripes - fromDisk - fromSource - unchangedStripes;
  const unchanged = unchangedStripes === 0 ? "" : `, ${unchangedStripes} not changed`;
  return `${quantityText(diskBytes)}: ${stripes} stripes, ${fromDisk} from the disk, ${fromSource} from its source${unchanged}, ${skipped} never written`;
}

function textOf(summary: ArchiveSummary): string {
  const { zeroStripes, duplicateStripes, reusedStripes, objectsWritten } = summary;
  const written = `${objectsWritten} objects written, ${quantityText(physicalBytes(summary))}`;
  const other = `${zeroStripes} stripes of zeros, ${duplicateStripes} like another, ${reusedStripes} there before`;
  return `${planText(summary)}; ${written}; ${other}`;
}

function factsOf(
  summary: ArchiveSummary,
  isDryRun: boolean,
): Readonly<Record<string, number | boolean>> {
  return {
    dry_run: isDryRun,
    logical_size_bytes: summary.diskBytes,
    physical_size_bytes: physicalBytes(summary),
    stripe_bytes: summary.stripeBytes,
    stripes: summary.stripes,
    stripes_from_disk: summary.fromDisk,
    stripes_from_source: summary.fromSource,
    stripes_skipped:
      summary.stripes - summary.fromDisk - summary.fromSource - summary.unchangedStripes,
    stripes_unchanged: summary.unchangedStripes,
    zero_stripes: summary.zeroStripes,
    duplicate_stripes: summary.duplicateStripes,
    reused_stripes: summary.reusedStripes,
    objects_written: summary.objectsWritten,
    object_bytes_written: summary.objectBytesWritten,
    manifest_bytes: summary.manifestBytes,
    overlong_objects: summary.overlongObjects,
    leaves_objects: summary.leavesObjects,
  };
}
