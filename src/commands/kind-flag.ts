/** The flag that names a kind of configuration, of commands that tell what such a document may hold. */
import { DOCUMENT_KINDS } from "../config/document-kinds.ts";

export const KIND_FLAG = {
  kind: {
    type: "enum" as const,
    options: [...DOCUMENT_KINDS],
    default: "device" as const,
    description: "kind of the configuration, by its main section",
  },
};
