/**
 * Checks AWS Signature Version 4 of a request, written from AWS's description of it and sharing nothing with the
 * product: canonical request, string to sign, derived key.
 */
import { createHash, createHmac, timingSafeEqual } from "node:crypto";

export interface SignedRequest {
  readonly method: string;
  /** As it stood in the request line: path and query, still encoded. */
  readonly target: string;
  readonly headers: Headers;
  readonly body: Uint8Array;
}

export interface SigningKey {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly sessionToken?: string;
  readonly region: string;
}

/** Whom a request says that it comes from. */
export function accessKeyIn(headers: Headers): string {
  return /Credential=([^/,]+)/.exec(headers.get("authorization") ?? "")?.[1] ?? "";
}

/** An S3 error code when the signature is not right, otherwise undefined. */
export function signatureFault(request: SignedRequest, key: SigningKey): string | undefined {
  const { headers } = request;
  const authorization = headers.get("authorization") ?? "";
  const parts =
    /^AWS4-HMAC-SHA256 Credential=([^/,]+)\/(\d{8})\/([^/,]+)\/s3\/aws4_request, ?SignedHeaders=([^,]+), ?Signature=([0-9a-f]{64})$/.exec(
      authorization,
    );
  if (parts === null) {
    return "AccessDenied";
  }
  const [, accessKeyId, day = "", region = "", signedHeaders = "", signature = ""] = parts;
  const date = headers.get("x-amz-date") ?? "";
  if (accessKeyId !== key.accessKeyId) {
    return "InvalidAccessKeyId";
  }
  if (region !== key.region || !date.startsWith(day)) {
    return "AuthorizationHeaderMalformed";
  }
  if ((headers.get("x-amz-security-token") ?? undefined) !== key.sessionToken) {
    return "InvalidToken";
  }
  const names = signedHeaders.split(";");
  const mustBeSigned = [...headers.keys()].filter((name) => name.startsWith("x-amz-"));
  if (!names.includes("host") || mustBeSigned.some((name) => !names.includes(name))) {
    return "AccessDenied";
  }
  if (headers.get("x-amz-content-sha256") !== sha256Hex(request.body)) {
    return "XAmzContentSHA256Mismatch";
  }
  const scope = `${day}/${region}/s3/aws4_request`;
  const text = `AWS4-HMAC-SHA256\n${date}\n${scope}\n${sha256Hex(canonicalRequest(request, names))}`;
  const steps = [day, region, "s3", "aws4_request"];
  const signingKey = steps.reduce<string | Buffer>(
    (previous, step) => createHmac("sha256", previous).update(step).digest(),
    `AWS4${key.secretAccessKey}`,
  );
  const expected = createHmac("sha256", signingKey).update(text).digest();
  return timingSafeEqual(expected, Buffer.from(signature, "hex"))
    ? undefined
    : "SignatureDoesNotMatch";
}

// --- internal ---

function canonicalRequest(request: SignedRequest, signedNames: readonly string[]): string {
  const [path = "", query = ""] = request.target.split("?");
  const parameters = query
    .split("&")
    .filter((each) => each !== "")
    .map((each) => (each.includes("=") ? each : `${each}=`))
    .sort();
  const headers = signedNames.map(
    (name) => `${name}:${(request.headers.get(name) ?? "").trim().replace(/ +/g, " ")}\n`,
  );
  return [
    request.method,
    path,
    parameters.join("&"),
    headers.join(""),
    signedNames.join(";"),
    request.headers.get("x-amz-content-sha256") ?? "",
  ].join("\n");
}

function sha256Hex(data: string | Uint8Array): string {
  return createHash("sha256").update(data).digest("hex");
}
