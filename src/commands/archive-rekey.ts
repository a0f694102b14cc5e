/** `ubiblk archive rekey`: another key-encryption key for an archive. */
import { defineCommand } from "citty";
import { describeStore } from "../archive/open-store.ts";
import { loadTargetConfig, resolveSecrets } from "../config/index.ts";
import { rekeyArchive } from "../copy/archive-upkeep.ts";
import { UbiError } from "../errors.ts";
import { quietLog, toldLine } from "../log.ts";
import { withArchivePlace } from "./archive-place.ts";
import { hardenOrWarn } from "./hardening.ts";
import { interruptible } from "./interruption.ts";
import { writePieces } from "./standard-output.ts";

export default defineCommand({
  meta: {
    name: "rekey",
    description:
      "Wraps the keys of an archive with another key-encryption key: the archive_kek of [target]. Only metadata.json " +
      "changes, in one step. Who has the old key and a copy of the old metadata.json can still read the archive",
  },
  args: {
    source: {
      type: "string",
      required: true,
      valueHint: "FILE",
      description: "configuration with [archive], as it opens now",
    },
    "target-config": {
      type: "string",
      required: true,
      valueHint: "FILE",
      description: "configuration with [target]: the same place, with the new archive_kek",
    },
    "take-over": {
      type: "string",
      valueHint: "RUN",
      description: "work on another machine that has ended for sure, as the refusal names it",
    },
    quiet: { type: "boolean", default: false, description: "tell nothing but errors and warnings" },
  },
  run: ({ args }) =>
    rekey(args.source, args["target-config"], {
      takeOver: args["take-over"],
      isQuiet: args.quiet,
    }),
});

// --- internal ---

async function rekey(
  sourcePath: string,
  targetPath: string,
  options: { readonly takeOver: string | undefined; readonly isQuiet: boolean },
): Promise<void> {
  hardenOrWarn();
  if (options.isQuiet) {
    quietLog();
  }
  const config = await loadTargetConfig(targetPath);
  const { archiveKek } = config.target;
  const { enabled, allowArchiveKeysInClear } = config.dangerZone;
  if (archiveKek === undefined && !(enabled && allowArchiveKeysInClear)) {
    throw new UbiError(
      "E_CONFIG_DANGER",
      `${targetPath}: without target.archive_kek the archive's keys would lie beside its data in the clear; add it, ` +
        "or set danger_zone.enabled with danger_zone.allow_archive_keys_in_clear",
    );
  }
  await interruptible("the change of the key", (signal) =>
    withArchivePlace({ configPath: sourcePath, role: "read", signal }, async (place) => {
      using secrets = await resolveSecrets(config, ["target"], signal);
      using store = await describeStore(config.target, secrets, "write", signal);
      const target = store.description;
      const newKek = archiveKek === undefined ? undefined : secrets.get(archiveKek).bytes;
      await rekeyArchive({ ...place, ...options, target, newKek, signal });
    }),
  );
  if (!options.isQuiet) {
    writePieces(2, [toldLine("info", "rekey: the archive has another key-encryption key")]);
  }
}
