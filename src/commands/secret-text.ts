/** What the tools for secrets print for a document: an envelope, alone or as the table of its secret. */
import { sectionText } from "../config/toml.ts";

export interface WrappedSecret {
  readonly name: string;
  readonly envelope: Uint8Array;
  /** The name of its KEK in the document. */
  readonly kekName: string;
}

/** The table `[secrets.NAME]`. */
export function secretTable({ name, envelope, kekName }: WrappedSecret): string {
  return sectionText(["secrets", name], {
    source: { inline: envelope.toBase64() },
    encoding: "base64",
    encrypted_by: { ref: kekName },
  });
}

/** Base64 in a line of its own. */
export function envelopeLine(envelope: Uint8Array): string {
  return `${envelope.toBase64()}\n`;
}
