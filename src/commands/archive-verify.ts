/** `ubiblk archive verify`: reads all of an archive. */
import { defineCommand } from "citty";
import { verifyArchive } from "../copy/archive-check.ts";
import { UbiError } from "../errors.ts";
import { quietLog } from "../log.ts";
import { withArchivePlace } from "./archive-place.ts";
import { hardenOrWarn } from "./hardening.ts";
import { interruptible } from "./interruption.ts";
import { quantityText } from "./quantity-text.ts";
import { TransferProgress } from "./transfer-progress.ts";

export default defineCommand({
  meta: {
    name: "verify",
    description:
      "Reads all of an archive: opens and authenticates it, then fetches, hashes and decodes every object. Each that " +
      "is not as it should be is named; the exit code is 1 then",
  },
  args: {
    source: {
      type: "string",
      required: true,
      valueHint: "FILE",
      description: "configuration with [archive]",
    },
    quiet: { type: "boolean", default: false, description: "tell nothing but what is wrong" },
    json: { type: "boolean", default: false, description: "tell events on standard output" },
  },
  run: ({ args }) => verify(args.source, { isQuiet: args.quiet, isJson: args.json }),
});

// --- internal ---

async function verify(
  configPath: string,
  style: { readonly isQuiet: boolean; readonly isJson: boolean },
): Promise<void> {
  hardenOrWarn();
  if (style.isQuiet) {
    quietLog();
  }
  using progress = new TransferProgress({ label: "verify", ...style });
  const summary = await interruptible("the check", (signal) =>
    withArchivePlace({ configPath, role: "read", signal }, (place) =>
      verifyArchive(
        { ...place, signal },
        {
          onProgress: progress.show.bind(progress),
          onBad: ({ stripe, code, message }) =>
            progress.tell(`bad ${code}: ${message}`, {
              event: "bad",
              stripe: stripe ?? null,
              code,
              message,
            }),
        },
      ),
    ),
  );
  const { storedStripes, objects, objectBytes, badStripes, surplus } = summary;
  progress.done(`${objects} objects of ${storedStripes} stripes, ${quantityText(objectBytes)}`, {
    stored_stripes: storedStripes,
    objects,
    object_bytes: objectBytes,
    bad_stripes: badStripes,
    bad_manifest: surplus,
  });
  if (badStripes > 0) {
    const advice =
      "bring the named objects back from a copy, or archive the disk again: --incremental writes anew what is " +
      "damaged, --replace everything";
    const what = badStripes === 1 ? "1 stripe" : `${badStripes} stripes`;
    throw new UbiError("E_ARCHIVE_DATA", `${what} cannot be read; ${advice}`);
  }
  if (surplus > 0) {
    const what = "all stripes can be read, but the manifest was changed";
    throw new UbiError("E_ARCHIVE_TAMPERED", `${what}; bring it back from a copy`);
  }
}
