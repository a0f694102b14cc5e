/** Keys in a profile of the file that AWS's tools share: AWS_SHARED_CREDENTIALS_FILE, AWS_PROFILE. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { isHeaderText } from "../../config/header-text.ts";
import { inspectFileSource, readSecretFile } from "../../config/secret-sources.ts";
import { readProfile } from "./profile-file.ts";
import {
  absent,
  type ProviderAnswer,
  type ProviderSurroundings,
  providerError,
} from "./provider.ts";

export async function profileCredentials({
  variable,
  homeFolder,
  files,
}: Pick<ProviderSurroundings, "variable" | "homeFolder" | "files">): Promise<ProviderAnswer> {
  const named = variable("AWS_SHARED_CREDENTIALS_FILE");
  const path = named ?? join(homeFolder, ".aws", "credentials");
  const chosen = variable("AWS_PROFILE");
  const profile = chosen ?? "default";
  if (named === undefined && chosen === undefined && !existsSync(path)) {
    return absent(`there is no ${path}`);
  }
  inspectFileSource(path, files);
  const settings = readProfile(await textOf(path, files), profile);
  if (settings === undefined && chosen === undefined) {
    return absent(`${path} has no profile ${JSON.stringify(profile)}`);
  }
  const accessKeyId = settings?.get("aws_access_key_id");
  const secretAccessKey = settings?.get("aws_secret_access_key");
  const sessionToken = settings?.get("aws_session_token");
  if (!accessKeyId || !secretAccessKey) {
    const lacking =
      settings === undefined
        ? `no profile ${JSON.stringify(profile)}`
        : `no aws_access_key_id with aws_secret_access_key in profile ${JSON.stringify(profile)}; other ways to ` +
          "credentials are not followed";
    throw providerError("profile", `${path} has ${lacking}`);
  }
  if (!isHeaderText(accessKeyId) || (sessionToken && !isHeaderText(sessionToken))) {
    const what = "aws_access_key_id or aws_session_token with a character that none has";
    throw providerError("profile", `${path}: profile ${JSON.stringify(profile)} has an ${what}`);
  }
  return {
    kind: "found",
    canChange: true,
    credentials: { accessKeyId, secretAccessKey, ...(sessionToken ? { sessionToken } : {}) },
  };
}

// --- internal ---

const FILE_BYTES_MAX = 2 ** 20;
const TIMEOUT_MS = 10_000;

async function textOf(path: string, files: ProviderSurroundings["files"]): Promise<string> {
  const limits = { what: path, bytesMax: FILE_BYTES_MAX, timeoutMs: TIMEOUT_MS };
  const bytes = await readSecretFile(path, limits, files);
  try {
    if (bytes.length > FILE_BYTES_MAX) {
      throw providerError("profile", `${path} is larger than 1 MiB`);
    }
    return new TextDecoder().decode(bytes);
  } finally {
    bytes.fill(0);
  }
}
