/** `ubiblk secret`: keys for configurations. What it does is said by the word behind it. */
import { defineCommand } from "citty";
import { UbiError } from "../errors.ts";

export default defineCommand({
  meta: {
    name: "secret",
    description:
      "Makes the keys that configurations name in [secrets], and encrypts them with a key-encryption key (KEK)",
  },
  run: () => {
    throw new UbiError(
      "E_USAGE",
      "gen, wrap, unwrap or rewrap is expected; see ubiblk secret --help",
    );
  },
});
