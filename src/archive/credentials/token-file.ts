/** Files of one token, which platforms put beside a program and exchange from time to time. */
import type { CredentialProvider } from "../../config/schema.ts";
import {
  type FileSourcePolicy,
  inspectFileSource,
  readSecretFile,
} from "../../config/secret-sources.ts";
import { isHeaderText } from "./credentials.ts";
import { providerError } from "./provider.ts";

/** @throws UbiError E_CREDENTIALS, E_SECRET_READ, E_CONFIG_DANGER */
export async function readTokenFile(
  provider: CredentialProvider,
  path: string,
  files: FileSourcePolicy,
): Promise<string> {
  inspectFileSource(path, files);
  const limits = { what: path, bytesMax: TOKEN_BYTES_MAX, timeoutMs: TIMEOUT_MS };
  const bytes = await readSecretFile(path, limits, files);
  const token = new TextDecoder().decode(bytes).trim();
  const { length } = bytes;
  bytes.fill(0);
  if (length > TOKEN_BYTES_MAX || !isHeaderText(token)) {
    const expected = `1 to ${TOKEN_BYTES_MAX} bytes of one line are expected`;
    throw providerError(provider, `${path} does not hold a token: ${expected}`);
  }
  return token;
}

// --- internal ---

/** What AWS accepts of a web identity. */
const TOKEN_BYTES_MAX = 20_000;
const TIMEOUT_MS = 10_000;
