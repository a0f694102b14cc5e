/** `ubiblk dump-metadata`: tells what the metadata file of a disk says, also while the disk is in use. */
import { defineCommand } from "citty";
import { loadDeviceConfig } from "../config/index.ts";
import { jsonOf, type MetadataReport, reportMetadata, textOf } from "../copy/metadata-report.ts";
import { stripesOf } from "../formats/metadata.ts";
import { SECTOR_BYTES } from "../formats/virtio-blk.ts";
import { log } from "../log.ts";
import { hardenOrWarn } from "./hardening.ts";
import { writePieces } from "./standard-output.ts";

export default defineCommand({
  meta: {
    name: "dump-metadata",
    description:
      "Tells which stripes of a disk are fetched, written, or in its source, also while the disk is in use",
  },
  args: {
    config: {
      type: "string",
      alias: "f",
      required: true,
      valueHint: "FILE",
      description: "device configuration with metadata_path",
    },
    json: {
      type: "boolean",
      default: false,
      description: "one line of JSON, with counts and percentages",
    },
  },
  run: ({ args }) => dump(args.config, args.json),
});

// --- internal ---

async function dump(configPath: string, isJson: boolean): Promise<void> {
  hardenOrWarn();
  const config = await loadDeviceConfig(configPath, { require: ["metadata_path"] });
  const report = await reportMetadata(config);
  warnOfOtherSize(report);
  writePieces(1, isJson ? jsonOf(report) : textOf(report));
}

/** A backend refuses such a disk. */
function warnOfOtherSize({ dataBytes, dataPath, metadata }: MetadataReport): void {
  if (dataBytes === undefined) {
    return;
  }
  const diskStripes = stripesOf(dataBytes / SECTOR_BYTES, metadata.stripeShift);
  if (diskStripes !== metadata.stripeCount) {
    const counts = { disk: dataPath, disk_stripes: diskStripes, metadata: metadata.stripeCount };
    log.warn("the disk has another number of stripes than its metadata", counts);
  }
}
