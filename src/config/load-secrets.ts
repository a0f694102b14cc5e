/** Loads the `[secrets]` of a document of any kind, for tools that work on secrets: its other sections may be anything. */
import type { DeclaredSecrets } from "./declared-secrets.ts";
import { checkDocument } from "./load-document.ts";
import { SecretsDocument } from "./schema.ts";
import { readSourceDocument } from "./source-files.ts";

export interface SecretsOfDocument {
  readonly secrets: DeclaredSecrets;
  /** The root file and those that it includes. */
  readonly files: readonly string[];
}

/**
 * @param path of the root file; relative paths in it start from its directory
 * @param signal ends the wait for the writer of a pipe
 * @throws UbiErrors with every mistake of `[secrets]` and `[danger_zone]`; the signal's reason
 */
export async function loadSecrets(path: string, signal: AbortSignal): Promise<SecretsOfDocument> {
  const source = await readSourceDocument(path, signal);
  const { secrets } = checkDocument(source, {
    schema: SecretsDocument,
    isPart: true,
    check: () => undefined,
  });
  return { secrets, files: source.files };
}
