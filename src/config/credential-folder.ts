/**
 * Credentials that a service manager hands to a service: files in the folder `CREDENTIALS_DIRECTORY`
 * names (systemd.exec(5), LoadCredential=). They lie in memory, and only the service can read them, so
 * they need no permission of the danger zone. What merely claims to be one is a file like any other.
 */
import { realpathSync, type Stats, statSync } from "node:fs";
import { UbiError } from "../errors.ts";
import { systemErrorCode } from "./bounded-read.ts";

/** @throws UbiError E_SECRET_READ when this process has no credentials */
export function credentialPath(name: string): string {
  const folder = process.env[VARIABLE];
  if (folder === undefined || !folder.startsWith("/")) {
    const problem = folder === undefined ? "is not set" : "is no absolute path";
    const advice = `start it as a service with LoadCredential=${name}:FILE, or use source.file`;
    throw new UbiError(
      "E_SECRET_READ",
      `cannot read credential ${name}: ${VARIABLE} ${problem}; ${advice}`,
    );
  }
  return `${folder}/${name}`;
}

/** Whether a name can be a credential's: that of a file, without a way to another folder. */
export function isCredentialName(name: string): boolean {
  return /^[^/:\p{Cc}]{1,255}$/u.test(name) && name !== "." && name !== "..";
}

/**
 * Whether a regular file is a credential: it lies in the folder itself, and neither can be changed, nor
 * read, by other users.
 * @param stats of the file as it was opened
 */
export function isCredential(file: string, stats: Stats): boolean {
  const folder = process.env[VARIABLE];
  if (!stats.isFile() || folder === undefined || !folder.startsWith("/")) {
    return false;
  }
  try {
    const realFolder = realpathSync(folder);
    const realFile = realpathSync(file);
    const { dev, ino } = statSync(realFile);
    return (
      realFile.startsWith(`${realFolder}/`) &&
      dev === stats.dev &&
      ino === stats.ino &&
      isPrivate(statSync(realFolder)) &&
      isPrivate(stats)
    );
  } catch (error) {
    if (systemErrorCode(error) === undefined) {
      throw error;
    }
    return false; // it went away, or is none of ours to look at: then it is no credential
  }
}

// --- internal ---

const VARIABLE = "CREDENTIALS_DIRECTORY";

/**
 * The group may have read permission: that is how an access control list for the service's user shows in
 * the mode.
 */
function isPrivate({ uid, mode }: Stats): boolean {
  return (uid === 0 || uid === process.geteuid?.()) && (mode & 0o027) === 0;
}
