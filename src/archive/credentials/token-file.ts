/** Files of one token, which platforms put beside a program and exchange from time to time. */
import { isHeaderText } from "../../config/header-text.ts";
import type { CredentialProvider } from "../../config/schema.ts";
import {
  type FileSourcePolicy,
  inspectFileSource,
  readSecretFile,
} from "../../config/secret-sources.ts";
import { UbiError } from "../../errors.ts";
import { providerError } from "./provider.ts";

/**
 * @param file what the variable of that name says
 * @throws UbiError E_CREDENTIALS, E_CONFIG_DANGER
 */
export async function readTokenFile(
  provider: CredentialProvider,
  file: { readonly variable: string; readonly path: string },
  files: FileSourcePolicy,
): Promise<string> {
  const { path } = file;
  const bytes = await readFile(path, files).catch((error: unknown) => {
    const isUnread = error instanceof UbiError && error.code === "E_SECRET_READ";
    throw isUnread ? providerError(provider, `${file.variable}: ${error.message}`) : error;
  });
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

async function readFile(path: string, files: FileSourcePolicy): Promise<Uint8Array> {
  inspectFileSource(path, files);
  const limits = { what: path, bytesMax: TOKEN_BYTES_MAX, timeoutMs: TIMEOUT_MS };
  return await readSecretFile(path, limits, files);
}
