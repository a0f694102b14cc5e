/** All that is needed to talk to a bucket, as plain data that threads can share. */
import type { SharedCredentials } from "./credentials/shared-credentials.ts";
import type { StoreRole } from "./object-store.ts";

/** Secrets included: never log it. The shared buffer makes limits hold for all threads together. */
export interface S3StoreDescription {
  readonly kind: "s3";
  readonly role: StoreRole;
  readonly bucket: string;
  /** Empty, or ends in "/". */
  readonly prefix: string;
  readonly region: string;
  readonly endpoint: string | undefined;
  readonly isPathStyleForced: boolean;
  readonly credentials: SharedCredentials;
  readonly connections: number;
  readonly connectTimeoutMs: number;
  readonly attemptTimeoutMs: number;
  readonly attemptsMax: number;
  /** undefined: the exponential delay. */
  readonly rateLimitedRetry: { readonly delayMsMin: number; readonly jitterMs: number } | undefined;
  readonly caCertificates: string | undefined;
  readonly storageClass: string | undefined;
  readonly serverSideEncryption: string | undefined;
  readonly checksums: "always" | "when_required";
  /** Connections in use and retry quota, of the whole process. */
  readonly shared: SharedArrayBuffer;
}
