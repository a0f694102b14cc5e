/** What follows the word `secret`. */
import { type CommandEntry, EXIT_OF_WORK } from "./command-entry.ts";

export const SECRET_TOOLS: Readonly<Record<string, CommandEntry>> = {
  gen: {
    description: "Makes a new secret",
    examples: [
      ["ubiblk secret gen --kind xts-key --output disk.key", "the key of a disk, mode 0600"],
      ["ubiblk secret gen --kind kek --output kek", "a key that encrypts others"],
    ],
    exitCodes: EXIT_OF_WORK,
    load: async (wrap) => wrap((await import("./secret-gen.ts")).default),
  },
  wrap: {
    description: "Encrypts a secret with a key-encryption key",
    examples: [
      ["ubiblk secret wrap --name xts_key --kek kek --input disk.key", "in base64"],
      ["ubiblk secret wrap --name xts_key --kek kek --table < disk.key", "as [secrets.xts_key]"],
    ],
    exitCodes: EXIT_OF_WORK,
    load: async (wrap) => wrap((await import("./secret-wrap.ts")).default),
  },
  unwrap: {
    description: "Decrypts a secret",
    examples: [
      [
        "ubiblk secret unwrap --name xts_key -f config.toml --output disk.key",
        "of a configuration",
      ],
      ["ubiblk secret unwrap --name xts_key --kek kek --output disk.key < envelope", "by itself"],
    ],
    exitCodes: EXIT_OF_WORK,
    load: async (wrap) => wrap((await import("./secret-unwrap.ts")).default),
  },
  rewrap: {
    description: "Encrypts secrets with another key, or for another name",
    examples: [
      [
        "ubiblk secret rewrap -f config.toml --kek-name kek --new-kek new.kek",
        "all that kek encrypts",
      ],
      ["ubiblk secret rewrap -f config.toml --name xts_key --new-name disk_key", "another name"],
    ],
    exitCodes: EXIT_OF_WORK,
    load: async (wrap) => wrap((await import("./secret-rewrap.ts")).default),
  },
};
