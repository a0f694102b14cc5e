/** `ubiblk config schema`: the schema of configurations for editors. */
import { defineCommand } from "citty";
import { DOCUMENT_KINDS } from "../config/document-kinds.ts";
import { jsonSchemaOf } from "../config/json-schema.ts";
import { writePieces } from "./standard-output.ts";

export default defineCommand({
  meta: {
    name: "schema",
    description:
      "Prints the JSON Schema of a kind of configuration, for editors and other checkers",
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
    writePieces(1, [`${JSON.stringify(jsonSchemaOf(args.kind), undefined, 2)}\n`]);
  },
});
