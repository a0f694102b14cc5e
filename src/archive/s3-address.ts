/**
 * Where an object lies in an S3 service. A bucket is named in front of the host name where that can be (it fits a
 * certificate and a host name), otherwise in the path; a path of the endpoint stays in front of both.
 *
 *   virtual-hosted   https://bucket.host/base/prefix/key
 *   path style       https://host/base/bucket/prefix/key
 */
import { UbiError } from "../errors.ts";

export interface S3Place {
  readonly bucket: string;
  readonly region: string;
  /** undefined: AWS. */
  readonly endpoint: string | undefined;
  readonly isPathStyleForced: boolean;
}

/** The URL of the bucket, without a slash at its end. @throws UbiError E_STORE */
export function bucketUrl(place: S3Place): string {
  const endpoint = place.endpoint ?? awsEndpoint(place.region);
  if (!URL.canParse(endpoint)) {
    throw new UbiError("E_STORE", `${JSON.stringify(endpoint)} is not the URL of a service`);
  }
  const url = new URL(endpoint);
  const base = url.pathname.replace(/\/+$/, "");
  const isPathStyle =
    place.isPathStyleForced || isIpAddress(url.hostname) || !fitsHostName(place.bucket, url);
  return isPathStyle
    ? `${url.protocol}//${url.host}${base}/${encodePath(place.bucket)}`
    : `${url.protocol}//${place.bucket}.${url.host}${base}`;
}

/** Every character but the unreserved ones of RFC 3986 and "/" as %XX: as the signature wants it. */
export function encodePath(path: string): string {
  return path.split("/").map(encodeComponent).join("/");
}

export function encodeComponent(text: string): string {
  return encodeURIComponent(text).replace(
    /[!'()*]/g,
    (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}

/** `a/b/` of `/a/b`: what stands in front of every key. */
export function normalPrefix(prefix: string | undefined): string {
  const inner = (prefix ?? "").replace(/^\/+|\/+$/g, "");
  return inner === "" ? "" : `${inner}/`;
}

// --- internal ---

function awsEndpoint(region: string): string {
  const domain = region.startsWith("cn-") ? "amazonaws.com.cn" : "amazonaws.com";
  return `https://s3.${region}.${domain}`;
}

function isIpAddress(hostname: string): boolean {
  return hostname.startsWith("[") || /^\d+\.\d+\.\d+\.\d+$/.test(hostname);
}

/** A dot in a bucket would be one level more than a certificate's wildcard covers. */
function fitsHostName(bucket: string, url: URL): boolean {
  const isLabel = /^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$/.test(bucket);
  const isName = /^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/.test(bucket) && !bucket.includes("..");
  return isLabel || (isName && url.protocol === "http:");
}
