/** `ubiblk scrub`: compares what was fetched from an archive with it. */
import { defineCommand } from "citty";
import { describeStore } from "../archive/open-store.ts";
import { type DeviceConfig, loadDeviceConfig } from "../config/index.ts";
import { ArchivedDisk } from "../copy/archived-disk.ts";
import { type ScrubOptions, type ScrubSummary, scrubDisk } from "../copy/scrub-disk.ts";
import { UbiError } from "../errors.ts";
import { quietLog } from "../log.ts";
import { withArchivePlace } from "./archive-place.ts";
import { hardenOrWarn } from "./hardening.ts";
import { interruptible } from "./interruption.ts";
import { sizeArgument } from "./size-argument.ts";
import { TransferProgress } from "./transfer-progress.ts";

export default defineCommand({
  meta: {
    name: "scrub",
    description:
      "Compares a disk with the archive that it was filled from: each stripe that was fetched, and that no guest wrote " +
      "to, has to be what the archive has. Each that is not is named; the exit code is 1 then. The disk may be served meanwhile",
  },
  args: {
    config: {
      type: "string",
      alias: "f",
      required: true,
      valueHint: "FILE",
      description: "device configuration, with metadata_path and track_written",
    },
    source: {
      type: "string",
      valueHint: "FILE",
      description:
        "configuration with [archive]; without it the disk's [stripe_source] is the archive",
    },
    "bytes-per-second": {
      type: "string",
      valueHint: "SIZE",
      description: "read no faster from the disk; K, M and G are powers of 1024",
    },
    quiet: { type: "boolean", default: false, description: "tell nothing but what is wrong" },
    json: { type: "boolean", default: false, description: "tell events on standard output" },
  },
  run: ({ args }) => {
    const limit = args["bytes-per-second"];
    return scrub({
      configPath: args.config,
      sourcePath: args.source,
      bytesPerSecond: limit === undefined ? Infinity : rateOf(limit),
      isQuiet: args.quiet,
      isJson: args.json,
    });
  },
});

// --- internal ---

interface ScrubCommand {
  readonly configPath: string;
  readonly sourcePath: string | undefined;
  readonly bytesPerSecond: number;
  readonly isQuiet: boolean;
  readonly isJson: boolean;
}

function rateOf(text: string): number {
  const rate = sizeArgument("--bytes-per-second", text);
  if (rate === 0) {
    throw new UbiError("E_USAGE", "--bytes-per-second: 0 is no rate; leave it out for no limit");
  }
  return rate;
}

async function scrub(command: ScrubCommand): Promise<void> {
  hardenOrWarn();
  if (command.isQuiet) {
    quietLog();
  }
  const config = await loadDeviceConfig(command.configPath, { require: ["metadata_path"] });
  checkUse(config, command);
  using progress = new TransferProgress({ label: "scrub", ...command });
  const summary = await interruptible("the scrub", async (signal) => {
    await using disk = await ArchivedDisk.open(config, { mayBeServed: true, signal });
    const hooks: ScrubHooks = {
      signal,
      bytesPerSecond: command.bytesPerSecond,
      onProgress: progress.show.bind(progress),
      onFinding: ({ stripe, code, message }) =>
        progress.tell(`bad ${code}: ${message}`, { event: "bad", stripe, code, message }),
    };
    return await runScrub(config, disk, command.sourcePath, hooks);
  });
  progress.done(textOf(summary), factsOf(summary));
  throwFindings(summary);
}

/** No medium rots like this: what differs there is what guests wrote, or another archive. */
function mayBeDamage({ differentStripes, checkedStripes }: ScrubSummary): boolean {
  return 2 * differentStripes.length <= checkedStripes;
}

function checkUse({ device, stripeSource }: DeviceConfig, command: ScrubCommand): void {
  if (!device.trackWritten) {
    throw new UbiError(
      "E_CONFIG",
      "device.track_written: it is off: what a guest wrote cannot be told from damage",
    );
  }
  if (command.sourcePath === undefined && stripeSource?.type !== "archive") {
    throw new UbiError(
      "E_USAGE",
      "--source: missing, and the [stripe_source] of the disk is no archive; name a document with [archive]",
    );
  }
}

type ScrubHooks = Omit<ScrubOptions, "source" | "kek">;

async function runScrub(
  config: DeviceConfig,
  disk: ArchivedDisk,
  sourcePath: string | undefined,
  hooks: ScrubHooks,
): Promise<ScrubSummary> {
  if (sourcePath === undefined) {
    return await scrubSource(config, disk, hooks);
  }
  const place = { configPath: sourcePath, role: "read", signal: hooks.signal } as const;
  return await withArchivePlace(place, (opened) => scrubDisk(disk, { ...hooks, ...opened }));
}

/** Against the disk's own source. */
async function scrubSource(
  { stripeSource }: DeviceConfig,
  disk: ArchivedDisk,
  hooks: ScrubHooks,
): Promise<ScrubSummary> {
  if (stripeSource?.type !== "archive") {
    throw new UbiError("E_USAGE", "--source: missing");
  }
  const secrets = await disk.sourceSecrets();
  using store = await describeStore(stripeSource, secrets, "read", hooks.signal);
  const { archiveKek } = stripeSource;
  const kek = archiveKek === undefined ? undefined : secrets.get(archiveKek).bytes;
  return await scrubDisk(disk, { ...hooks, source: store.description, kek });
}

function textOf(summary: ScrubSummary): string {
  const { checkedStripes, differentStripes, unknownStripes, writtenStripes } = summary;
  const bad = `${differentStripes.length} differ`;
  const others = `${unknownStripes} could not be compared, ${writtenStripes} written by guests and ${summary.unfetchedStripes} not fetched left out`;
  const use = summary.wasServed ? "; the disk was served meanwhile" : "";
  return `${checkedStripes} stripes compared with ${summary.archive}: ${bad}; ${others}${use}`;
}

function factsOf(summary: ScrubSummary): Readonly<Record<string, unknown>> {
  return {
    archive: summary.archive,
    checked_stripes: summary.checkedStripes,
    different_stripes: summary.differentStripes.length,
    unknown_stripes: summary.unknownStripes,
    written_stripes: summary.writtenStripes,
    unfetched_stripes: summary.unfetchedStripes,
    served: summary.wasServed,
    objects: summary.objects,
  };
}

/** @throws UbiError E_SCRUB when something is wrong */
function throwFindings(summary: ScrubSummary): void {
  const { differentStripes, unknownStripes } = summary;
  const different = differentStripes.length;
  if (different > 0) {
    const stripes = different === 1 ? "1 stripe differs" : `${different} stripes differ`;
    const advice = mayBeDamage(summary)
      ? "the medium is damaged, or the archive is another one, or device.track_written was off while a guest used the disk"
      : `more than half of the ${summary.checkedStripes} that were compared, which is no damage: it is another archive, or ` +
        "device.track_written was off while a guest used the disk";
    throw new UbiError("E_SCRUB", `${stripes} from the archive: ${advice}`);
  }
  if (unknownStripes > 0) {
    throw new UbiError(
      "E_SCRUB",
      `${unknownStripes} stripes could not be compared: the archive is another one, or damaged, which archive verify tells`,
    );
  }
}
