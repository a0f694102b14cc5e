/** `ubiblk config`: tools for configurations; see CONFIG_TOOLS. */
import { defineCommand } from "citty";
import { UbiError } from "../errors.ts";

export default defineCommand({
  meta: { name: "config", description: "Checks configurations, and tells what can stand in one" },
  run: () => {
    throw new UbiError("E_USAGE", "check, schema or example is expected; see ubiblk config --help");
  },
});
