/** `ubiblk archive prune`: removes what an archive does not need. */
import { defineCommand } from "citty";
import { type PruneSummary, pruneArchive } from "../copy/archive-upkeep.ts";
import { quietLog } from "../log.ts";
import { withArchivePlace } from "./archive-place.ts";
import { hardenOrWarn } from "./hardening.ts";
import { interruptible } from "./interruption.ts";
import { quantityText } from "./quantity-text.ts";
import { TransferProgress } from "./transfer-progress.ts";

export default defineCommand({
  meta: {
    name: "prune",
    description:
      "Removes objects that an archive does not name, and what writes that were cut off left. The archive must open. " +
      "Refused while a run writes to it",
  },
  args: {
    source: {
      type: "string",
      required: true,
      valueHint: "FILE",
      description: "configuration with [archive]",
    },
    "dry-run": {
      type: "boolean",
      default: false,
      description: "remove nothing, tell what would go",
    },
    "discard-run": {
      type: "boolean",
      default: false,
      description: "give up a run that was cut off, with its objects",
    },
    "take-over": {
      type: "string",
      valueHint: "RUN",
      description:
        "a run on another machine that has ended for sure, as the refusal names it; it is given up",
    },
    quiet: { type: "boolean", default: false, description: "tell nothing but errors and warnings" },
    json: { type: "boolean", default: false, description: "tell the result as a line of JSON" },
  },
  run: async ({ args }) => {
    hardenOrWarn();
    if (args.quiet) {
      quietLog();
    }
    const isDry = args["dry-run"];
    const isRunGivenUp = args["discard-run"];
    const takeOver = args["take-over"];
    using progress = new TransferProgress({
      label: "prune",
      isQuiet: args.quiet,
      isJson: args.json,
    });
    const summary = await interruptible("the pruning", (signal) =>
      withArchivePlace(
        { configPath: args.source, role: isDry ? "read" : "write", signal },
        (place) => pruneArchive({ ...place, signal, isDry, isRunGivenUp, takeOver }),
      ),
    );
    const { objects, bytes, leftovers } = summary;
    const facts = { dry_run: isDry, objects, bytes, leftovers };
    progress.done(textOf(summary, isDry), { ...facts, run_given_up: summary.isRunGivenUp });
  },
});

// --- internal ---

function textOf({ objects, bytes, leftovers, isRunGivenUp }: PruneSummary, isDry: boolean): string {
  const verb = isDry ? "would remove" : "removed";
  const run = isRunGivenUp ? "; the run that was cut off is given up" : "";
  return `${verb} ${objects} objects, ${quantityText(bytes)}, and ${leftovers} leftovers of writes${run}`;
}
