/** What follows the word `config`. */
import { type CommandEntry, EXIT_OF_WORK } from "./command-entry.ts";

export const CONFIG_TOOLS: Readonly<Record<string, CommandEntry>> = {
  check: {
    description: "Tells what is wrong with configurations, and what they say",
    examples: [
      ["ubiblk config check config.toml", "reads the secrets as a backend would"],
      ["ubiblk config check --no-secrets /etc/ubiblk/*.toml", "reads no secret"],
      [
        "ubiblk config check --no-secrets --reference config.toml",
        "before another program gets it",
      ],
    ],
    exitCodes: { ...EXIT_OF_WORK, 0: "all are valid", 1: "one is not" },
    load: async (wrap) => wrap((await import("./config-check.ts")).default),
  },
  schema: {
    description: "Prints the JSON Schema of configurations, for editors",
    examples: [
      ["ubiblk config schema > device.schema.json", "of a disk"],
      ["ubiblk config schema --kind server > server.schema.json", "of a stripe server"],
    ],
    exitCodes: EXIT_OF_WORK,
    load: async (wrap) => wrap((await import("./config-schema.ts")).default),
  },
  example: {
    description: "Prints a sample with all keys, each explained",
    examples: [
      ["ubiblk config example > disk.toml", "of a disk"],
      ["ubiblk config example --kind target > target.toml", "of the place of an archive"],
    ],
    exitCodes: EXIT_OF_WORK,
    load: async (wrap) => wrap((await import("./config-example.ts")).default),
  },
};
