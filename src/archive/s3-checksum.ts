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
  if (headers.get("x-amz-checksum-type") === "COMPOSITE") {
    return undefined;
  }
  for (const [name, digest] of ALGORITHMS) {
    const told = headers.get(`x-amz-checksum-${name}`);
    if (told !== null && !told.includes("-") && told !== digest(body)) {
      return name;
    }
  }
  return undefined;
}

// --- internal ---

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
