/** Which refusals of a service mean that it no longer takes the credentials, so that others may help. */

/**
 * @param code `<Code>` of the error document
 * @param wereAccepted whether the service took these credentials before, or those that they replaced
 */
export function refusesCredentials(code: string | undefined, wereAccepted: boolean): boolean {
  return code !== undefined && (ENDED_CODES.has(code) || (wereAccepted && ROTATED_CODES.has(code)));
}

// --- internal ---

/** Said of a session that was good once. The last is Alibaba's. */
const ENDED_CODES: ReadonlySet<string> = new Set([
  "ExpiredToken",
  "ExpiredTokenException",
  "TokenRefreshRequired",
  "SecurityTokenExpired",
]);

/**
 * Said of keys that are wrong as well, so they count only where the keys were right before: then they were rotated. A
 * session that ended is an unknown key (InvalidAccessKeyId) to MinIO. A pair that was read in the middle of a rotation
 * does not sign right. AccessDenied is not among them: it is said of much else.
 */
const ROTATED_CODES: ReadonlySet<string> = new Set([
  "InvalidAccessKeyId",
  "InvalidClientTokenId",
  "InvalidSecurity",
  "InvalidToken",
  "InvalidTokenId",
  "SignatureDoesNotMatch",
]);
