/** `ubiblk export-archive`: the disk of an archive as a raw image. */
import { defineCommand } from "citty";
import { type ExportSummary, exportArchive } from "../copy/export-archive.ts";
import { quietLog } from "../log.ts";
import { withArchivePlace } from "./archive-place.ts";
import { hardenOrWarn } from "./hardening.ts";
import { interruptible } from "./interruption.ts";
import { quantityText } from "./quantity-text.ts";
import { sizeArgument } from "./size-argument.ts";
import { TransferProgress } from "./transfer-progress.ts";

export default defineCommand({
  meta: {
    name: "export-archive",
    description:
      "Writes the disk of an archive as a raw image, which appears when it is whole. Stripes without data are holes; " +
      "on a block device they are zeroed",
  },
  args: {
    source: {
      type: "string",
      required: true,
      valueHint: "FILE",
      description: "configuration with [archive]",
    },
    target: {
      type: "string",
      required: true,
      valueHint: "IMAGE",
      description: "file to write or replace, or block device",
    },
    clobber: {
      type: "boolean",
      default: true,
      description: "replace a target that is there already",
      negativeDescription: "refuse a target that is there already",
    },
    size: {
      type: "string",
      valueHint: "BYTES",
      description:
        "of the image, such as 200M (default: what the archive says; older ones know whole stripes only)",
    },
    sha256: {
      type: "boolean",
      default: false,
      description: "read the image back and tell its SHA-256",
    },
    quiet: { type: "boolean", default: false, description: "tell nothing but errors and warnings" },
    json: { type: "boolean", default: false, description: "tell events on standard output" },
  },
  run: ({ args }) =>
    exportTo({
      sourcePath: args.source,
      targetPath: args.target,
      mayReplace: args.clobber,
      sizeBytes: args.size === undefined ? undefined : sizeArgument("--size", args.size),
      isHashed: args.sha256,
      isQuiet: args.quiet,
      isJson: args.json,
    }),
});

// --- internal ---

interface ExportCommand {
  readonly sourcePath: string;
  readonly targetPath: string;
  readonly mayReplace: boolean;
  readonly sizeBytes: number | undefined;
  readonly isHashed: boolean;
  readonly isQuiet: boolean;
  readonly isJson: boolean;
}

async function exportTo(command: ExportCommand): Promise<void> {
  hardenOrWarn();
  if (command.isQuiet) {
    quietLog();
  }
  using progress = new TransferProgress({ label: "export", ...command });
  const onProgress = progress.show.bind(progress);
  const summary = await interruptible("the export", (signal) =>
    withArchivePlace({ configPath: command.sourcePath, role: "read", signal }, (place) =>
      exportArchive({ ...command, ...place, signal, onProgress }),
    ),
  );
  progress.done(textOf(command.targetPath, summary), factsOf(command.targetPath, summary));
}

function textOf(path: string, { sizeBytes, storedStripes, sha256 }: ExportSummary): string {
  const hash = sha256 === undefined ? "" : `; SHA-256 ${sha256}`;
  return `wrote ${path}: ${sizeBytes} bytes (${quantityText(sizeBytes)}), ${storedStripes} stripes of data${hash}`;
}

function factsOf(path: string, summary: ExportSummary): Readonly<Record<string, unknown>> {
  return {
    target: path,
    size_bytes: summary.sizeBytes,
    stripe_bytes: summary.stripeBytes,
    stored_stripes: summary.storedStripes,
    object_bytes: summary.objectBytes,
    sha256: summary.sha256 ?? null,
  };
}
