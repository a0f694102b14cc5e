/** Loads the `[secrets]` of a document of any kind, for tools that work on secrets: its other sections may be anything. */
import type { DeclaredSecrets } from "./declared-secrets.ts";
import { loadDocument } from "./load-document.ts";
import { SecretsDocument } from "./schema.ts";

/**
 * @param path of the root file; relative paths in it start from its directory
 * @throws UbiErrors with every mistake of `[secrets]` and `[danger_zone]`
 */
export async function loadSecrets(path: string): Promise<{ readonly secrets: DeclaredSecrets }> {
  const { secrets } = await loadDocument(path, {
    schema: SecretsDocument,
    isPart: true,
    check: () => undefined,
  });
  return { secrets };
}
