/** What an S3 service says when it does not do what it was asked, and how that reads. */
import type { ExchangeResponse } from "./s3-exchange.ts";
import type { ResponseFailure } from "./s3-retry.ts";
import { childText, parseXml } from "./s3-xml.ts";
import { shownText } from "./shown-text.ts";

/** Without a status: there was no answer. */
export interface Failure extends Partial<ResponseFailure> {
  readonly text: string;
  readonly message?: string | undefined;
  /** Where the bucket is, if the service tells. */
  readonly region?: string | undefined;
}

/** @param secrets what a hostile or talkative service may have got, and must not be repeated */
export function readFailure(
  { status, headers, body }: ExchangeResponse,
  secrets: readonly string[],
): Failure & ResponseFailure {
  const shown = (text: string) => shownText(text, { secrets });
  const root = parseXml(new TextDecoder().decode(body));
  const error = root?.name === "Error" ? root : undefined;
  const code = childText(error, "Code");
  const message = childText(error, "Message");
  const region = headers.get("x-amz-bucket-region") ?? childText(error, "Region");
  return {
    text: status >= 300 && status < 400 ? "the service points elsewhere" : "the service refused",
    status,
    code: code === undefined || code === "" ? undefined : shown(code),
    message: message === undefined ? undefined : shown(message),
    region: region === undefined ? undefined : shown(region),
    amzRetryAfter: headers.get("x-amz-retry-after"),
    retryAfter: headers.get("retry-after"),
  };
}

/** `PutObject failed for key 'K': why (status=503) code=SlowDown message="..."`. */
export function failureText(
  operation: { readonly name: string; readonly key: string },
  failure: Failure,
): string {
  const { status, code, message } = failure;
  const place = operation.key === "" ? "the bucket" : `key '${operation.key}'`;
  return [
    `${operation.name} failed for ${place}: ${failure.text}`,
    status === undefined ? "" : ` (status=${status})`,
    code === undefined ? "" : ` code=${code}`,
    message === undefined ? "" : ` message=${JSON.stringify(message)}`,
  ].join("");
}

/** What to do about it, where that is known. */
export function adviceFor({ status, code, region }: Failure): string {
  if (region !== undefined && (status === 301 || status === 307 || status === 400)) {
    return `; set region = ${JSON.stringify(region)}`;
  }
  const advice = code === undefined ? undefined : ADVICE[code];
  return advice === undefined ? "" : `; ${advice}`;
}

// --- internal ---

const ADVICE: Readonly<Record<string, string>> = {
  AccessDenied: "check the credentials and their rights on the bucket",
  AuthorizationHeaderMalformed: "check region",
  InvalidAccessKeyId: "check access_key_id and endpoint",
  NoSuchBucket: "check bucket and endpoint, or make the bucket",
  PermanentRedirect: "check region and endpoint",
  RequestTimeTooSkewed: "set the clock of this machine",
  SignatureDoesNotMatch: "check secret_access_key and region",
};
