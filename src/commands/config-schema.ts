/** `ubiblk config schema`: the schema of configurations for editors. */
import { defineCommand } from "citty";
import { jsonSchemaOf } from "../config/json-schema.ts";
import { KIND_FLAG } from "./kind-flag.ts";
import { writePieces } from "./standard-output.ts";

export default defineCommand({
  meta: {
    name: "schema",
    description:
      "Prints the JSON Schema of a kind of configuration, for editors and other checkers",
  },
  args: KIND_FLAG,
  run: ({ args }) => {
    writePieces(1, [`${JSON.stringify(jsonSchemaOf(args.kind), undefined, 2)}\n`]);
  },
});
