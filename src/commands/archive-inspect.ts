/** `ubiblk archive inspect`: what is in an archive. */
import { defineCommand } from "citty";
import { type ArchiveReport, inspectArchive } from "../copy/archive-check.ts";
import { SECTOR_BYTES } from "../formats/virtio-blk.ts";
import { withArchivePlace } from "./archive-place.ts";
import { hardenOrWarn } from "./hardening.ts";
import { interruptible } from "./interruption.ts";
import { quantityText } from "./quantity-text.ts";
import { writePieces } from "./standard-output.ts";

export default defineCommand({
  meta: {
    name: "inspect",
    description:
      "Opens and authenticates an archive and tells its parameters, how many stripes and objects it has, and what " +
      "lies beside it. No object is read",
  },
  args: {
    source: {
      type: "string",
      required: true,
      valueHint: "FILE",
      description: "configuration with [archive]",
    },
    json: { type: "boolean", default: false, description: "one line of JSON" },
  },
  run: async ({ args }) => {
    hardenOrWarn();
    const report = await interruptible("the inspection", (signal) =>
      withArchivePlace({ configPath: args.source, role: "read", signal }, (place) =>
        inspectArchive({ ...place, signal }),
      ),
    );
    writePieces(1, [args.json ? `${JSON.stringify(factsOf(report))}\n` : textOf(report)]);
  },
});

// --- internal ---

function factsOf(report: ArchiveReport): Readonly<Record<string, unknown>> {
  const { manifest, stripes, objects, listing } = report;
  const { compression } = manifest;
  return {
    archive: report.name,
    disk_bytes: manifest.sizeBytes,
    stripe_bytes: manifest.stripeSectors * SECTOR_BYTES,
    compression: compression.kind,
    zstd_level: compression.kind === "zstd" ? compression.level : null,
    encrypted: manifest.xtsKey !== undefined,
    keys_wrapped: manifest.isKeyProtected,
    stripes: { total: manifest.map.stripeEnd, ...stripes },
    objects,
    objects_present: listing.present,
    objects_missing: objects - listing.present,
    object_bytes: listing.presentBytes,
    manifest_bytes: report.manifestBytes,
    orphans: listing.orphans,
    orphan_bytes: listing.orphanBytes,
    unfinished_run: report.run ?? null,
  };
}

function textOf(report: ArchiveReport): string {
  const { manifest, stripes, objects, listing } = report;
  const { compression, stripeSectors } = manifest;
  const method = compression.kind === "none" ? "none" : `zstd, level ${compression.level}`;
  const missing = objects - listing.present;
  const keys = manifest.isKeyProtected ? "wrapped" : "in the clear";
  const rows = [
    ["archive", report.name],
    ["disk", `${manifest.sizeBytes} bytes`],
    ["stripe size", `${stripeSectors * SECTOR_BYTES} bytes`],
    ["compression", method],
    ["encrypted", `${manifest.xtsKey === undefined ? "no" : "yes"}; keys ${keys}`],
    [
      "stripes",
      `${manifest.map.stripeEnd}: ${stripes.stored} stored, ${stripes.zero} zero, ${stripes.absent} absent`,
    ],
    ["objects", `${objects}, ${quantityText(listing.presentBytes)}; ${missing} missing`],
    ["manifest", quantityText(report.manifestBytes)],
    ["orphans", `${listing.orphans}, ${quantityText(listing.orphanBytes)}`],
    ["unfinished run", report.run ?? "none"],
  ];
  return rows.map(([name, value]) => `${name}: ${value}\n`).join("");
}
