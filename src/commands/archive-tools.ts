/** What follows the word `archive`; without one of these a disk is archived. */
import { type CommandEntry, EXIT_OF_WORK } from "./command-entry.ts";

export const ARCHIVE_TOOLS: Readonly<Record<string, CommandEntry>> = {
  verify: {
    description: "Reads all of an archive and names what is wrong",
    examples: [
      ["ubiblk archive verify --source archive.toml", "every object; progress on a terminal"],
      [
        "ubiblk archive verify --source archive.toml --quiet",
        "from a timer: tells what is wrong only",
      ],
    ],
    exitCodes: { ...EXIT_OF_WORK, 0: "all is as it should be", 1: "something is not, or failed" },
    load: async (wrap) => wrap((await import("./archive-verify.ts")).default),
  },
  inspect: {
    description: "Tells what is in an archive",
    examples: [
      ["ubiblk archive inspect --source archive.toml", "parameters and counts; reads no object"],
      ["ubiblk archive inspect --source archive.toml --json", "the same for a program"],
    ],
    exitCodes: EXIT_OF_WORK,
    load: async (wrap) => wrap((await import("./archive-inspect.ts")).default),
  },
  prune: {
    description: "Removes objects that an archive does not need",
    examples: [
      ["ubiblk archive prune --source archive.toml --dry-run", "tells what would go"],
      ["ubiblk archive prune --source archive.toml", "removes it"],
    ],
    exitCodes: EXIT_OF_WORK,
    load: async (wrap) => wrap((await import("./archive-prune.ts")).default),
  },
  rekey: {
    description: "Gives an archive another key-encryption key",
    examples: [
      [
        "ubiblk archive rekey --source old.toml --target-config new.toml",
        "[target] has the new one",
      ],
    ],
    exitCodes: EXIT_OF_WORK,
    load: async (wrap) => wrap((await import("./archive-rekey.ts")).default),
  },
};
