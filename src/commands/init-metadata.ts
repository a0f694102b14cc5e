/** `ubiblk init-metadata`: makes the metadata file of a disk, or gives it the stripes of a disk that was made larger. */
import { defineCommand } from "citty";
import { loadDeviceConfig } from "../config/index.ts";
import { type GrownMetadata, growMetadata } from "../copy/grow-metadata.ts";
import { type InitializedMetadata, initMetadata } from "../copy/init-metadata.ts";
import { UbiError } from "../errors.ts";
import { stripeBytes } from "../formats/metadata.ts";
import { integerArgument } from "./arguments.ts";
import { hardenOrWarn } from "./hardening.ts";
import { writePieces } from "./standard-output.ts";

export default defineCommand({
  meta: {
    name: "init-metadata",
    description: "Makes the metadata file of a disk, which says where the data of each stripe is",
  },
  args: {
    config: {
      type: "string",
      alias: "f",
      required: true,
      valueHint: "FILE",
      description: "device configuration with metadata_path",
    },
    "stripe-sector-count-shift": {
      type: "string",
      alias: "s",
      valueHint: "N",
      description:
        "a stripe has 2^N sectors of 512 bytes: 6 (32 KiB) to 17 (64 MiB); " +
        "without it as the archive or stripe server has them, else 11 (1 MiB)",
      integer: { minimum: 0, maximum: 255 },
    },
    force: {
      type: "boolean",
      default: false,
      description: "replace metadata with fetched or written stripes, or what cannot be read",
    },
    grow: {
      type: "boolean",
      default: false,
      description:
        "keep the metadata that is there, and add the stripes of a disk that was made larger",
    },
  },
  run: async ({ args }) => {
    const stripeShift = shiftOf(args["stripe-sector-count-shift"]);
    if (!args.grow) {
      await init({ configPath: args.config, stripeShift, isForced: args.force });
    } else if (stripeShift !== undefined || args.force) {
      throw new UbiError(
        "E_USAGE",
        "--grow keeps the metadata that is there: it goes neither with --force nor with --stripe-sector-count-shift",
      );
    } else {
      await grow(args.config);
    }
  },
});

// --- internal ---

interface InitOptions {
  readonly configPath: string;
  readonly stripeShift: number | undefined;
  readonly isForced: boolean;
}

function shiftOf(text: string | undefined): number | undefined {
  return text === undefined ? undefined : integerArgument(text);
}

async function init(options: InitOptions): Promise<void> {
  hardenOrWarn();
  const config = await loadDeviceConfig(options.configPath, { require: ["metadata_path"] });
  writePieces(1, [summaryOf(await initMetadata(config, options))]);
}

async function grow(configPath: string): Promise<void> {
  hardenOrWarn();
  const config = await loadDeviceConfig(configPath, { require: ["metadata_path"] });
  writePieces(1, [growthOf(await growMetadata(config))]);
}

function growthOf(grown: GrownMetadata): string {
  const { path, stripesBefore, stripeCount, sizeBytes } = grown;
  const stripes = `${stripeCount} stripes of ${stripeBytes(grown)} bytes`;
  const added = stripeCount - stripesBefore;
  return `metadata ${path}: ${stripes}, ${added === 0 ? "none" : added} of them added; ${sizeBytes} bytes\n`;
}

function summaryOf(made: InitializedMetadata): string {
  const stripes = `${made.stripeCount} stripes of ${stripeBytes(made)} bytes`;
  const source = `${made.sourceStripes} in the stripe source`;
  const file = `${made.sizeBytes} bytes, ${made.isEncrypted ? "encrypted" : "not encrypted"}`;
  const lost = made.lost === undefined ? "" : `; given up: ${made.lost}`;
  return `metadata ${made.path}: ${stripes}, ${source}; ${file}${lost}\n`;
}
