/** `ubiblk config example`: a commented sample to begin with. */
import { defineCommand } from "citty";
import { exampleOf } from "../config/example-document.ts";
import { KIND_FLAG } from "./kind-flag.ts";
import { writePieces } from "./standard-output.ts";

export default defineCommand({
  meta: {
    name: "example",
    description: "Prints a sample of a kind of configuration with all keys, each explained",
  },
  args: KIND_FLAG,
  run: ({ args }) => {
    writePieces(1, [exampleOf(args.kind)]);
  },
});
