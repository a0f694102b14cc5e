/**
 * AWS Signature Version 4, by aws4fetch. The names of buckets and keys arrive encoded, so that what is signed and
 * what is sent are the same bytes; the hash of the body is always the real one.
 */
import { AwsV4Signer } from "aws4fetch";
import { type Credentials, secretsOf } from "./credentials/credentials.ts";

export interface UnsignedRequest {
  readonly method: string;
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Uint8Array | undefined;
}

export class S3Signer {
  readonly #credentials: Credentials;
  readonly #region: string;
  /** Derived keys, one for each day. */
  #keys = new Map<string, ArrayBuffer>();

  constructor(credentials: Credentials, region: string) {
    this.#credentials = credentials;
    this.#region = region;
  }

  /** Of a signed request, what no message may show: the service got all of it but the key. */
  secretsIn(signed: Headers): readonly string[] {
    const authorization = signed.get("authorization") ?? "";
    const signature = /Signature=([0-9a-f]+)/.exec(authorization)?.[1] ?? "";
    return [...secretsOf(this.#credentials), signature];
  }

  /** The headers to send: those of the request and the signature, which covers all of them. */
  async sign(request: UnsignedRequest): Promise<Headers> {
    const { accessKeyId, secretAccessKey, sessionToken } = this.#credentials;
    if (this.#keys.size > DERIVED_KEYS_MAX) {
      this.#keys = new Map();
    }
    const signer = new AwsV4Signer({
      accessKeyId,
      secretAccessKey,
      region: this.#region,
      ...(sessionToken === undefined ? {} : { sessionToken }),
      service: "s3",
      method: request.method,
      url: request.url,
      headers: { ...request.headers, "x-amz-content-sha256": sha256(request.body) },
      cache: this.#keys,
      allHeaders: true,
    });
    const signed = await signer.sign();
    return signed.headers;
  }
}

// --- internal ---

const DERIVED_KEYS_MAX = 4;

function sha256(body: Uint8Array | undefined): string {
  const hasher = new Bun.CryptoHasher("sha256");
  if (body !== undefined) {
    hasher.update(body);
  }
  return hasher.digest("hex");
}
