/** The checksums that S3 services keep beside their objects. */
import type { ExchangeResponse } from "./s3-exchange.ts";

/** What a request that stores `bytes` says of them. */
export function checksumHeaders(bytes: Uint8Array): Readonly<Record<string, string>> {
  return {
    "x-amz-sdk-checksum-algorithm": "CRC32",
    "x-amz-checksum-crc32": crc32(bytes),
  };
}

/**
 * The name of a checksum that does not fit the body, or undefined. Those of objects that were stored in parts
 * (`...-3`) cover the checksums of the parts, and the algorithms that are not here are left alone.
 */
export function wrongChecksum({ headers, body }: ExchangeResponse): string | undefined {
  return toldChecksums(headers).find(({ told, digest }) => told !== digest(body))?.name;
}

/**
 * Whether the headers tell that an object is these bytes: by a checksum, or by an ETag that is their MD5, as services
 * make it of an object that was stored in one piece and not enciphered with a key of the customer's. False when
 * they tell neither: an ETag may be anything.
 */
export function isToldToBe(headers: Headers, bytes: Uint8Array): boolean {
  const checksums = toldChecksums(headers);
  if (checksums.length > 0) {
    return checksums.every(({ told, digest }) => told === digest(bytes));
  }
  const md5 = /^"?([0-9a-f]{32})"?$/i.exec(headers.get("etag") ?? "")?.[1];
  return md5?.toLowerCase() === new Bun.CryptoHasher("md5").update(bytes).digest("hex");
}

// --- internal ---

interface ToldChecksum {
  readonly name: string;
  readonly told: string;
  readonly digest: (bytes: Uint8Array) => string;
}

function toldChecksums(headers: Headers): readonly ToldChecksum[] {
  if (headers.get("x-amz-checksum-type") === "COMPOSITE") {
    return [];
  }
  return ALGORITHMS.flatMap(([name, digest]) => {
    const told = headers.get(`x-amz-checksum-${name}`);
    return told === null || told.includes("-") ? [] : [{ name, told, digest }];
  });
}

const ALGORITHMS: readonly (readonly [string, (bytes: Uint8Array) => string])[] = [
  ["crc32", crc32],
  ["sha1", (bytes) => new Bun.CryptoHasher("sha1").update(bytes).digest("base64")],
  ["sha256", (bytes) => new Bun.CryptoHasher("sha256").update(bytes).digest("base64")],
];

/** Base64 of four bytes, the highest first. */
function crc32(bytes: Uint8Array): string {
  const sum = Buffer.alloc(4);
  sum.writeUInt32BE(Bun.hash.crc32(bytes));
  return sum.toString("base64");
}
