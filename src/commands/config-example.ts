/** `ubiblk config example`: a commented sample to begin with. */
import { defineCommand } from "citty";
import { DOCUMENT_KINDS } from "../config/document-kinds.ts";
import { exampleOf } from "../config/example-document.ts";
import { writePieces } from "./standard-output.ts";

export default defineCommand({
  meta: {
    name: "example",
    description: "Prints a sample of a kind of configuration with all keys, each explained",
  },
  args: {
    kind: {
      type: "enum",
      options: [...DOCUMENT_KINDS],
      default: "device",
      description: "kind of the configuration, by its main section",
    },
  },
  run: ({ args }) => {
    writePieces(1, [exampleOf(args.kind)]);
  },
});
