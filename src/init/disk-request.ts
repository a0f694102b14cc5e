/** What a new disk shall be, as a person asks for it: plain data. All paths are absolute. */

export interface DiskRequest {
  /** Where everything is made. */
  readonly folder: string;
  /** Of the configuration, when it is to lie elsewhere. */
  readonly configPath: string | undefined;
  readonly medium: RequestedMedium;
  /** A stripe has 2^shift sectors. Undefined: as the source has them, else 1 MiB. */
  readonly stripeShift: number | undefined;
  readonly key: RequestedKey;
  readonly source: RequestedSource;
  /** Keys of `[device]` besides the paths of data and metadata. Socket paths may be relative to the folder. */
  readonly device: {
    readonly vhost_socket: string;
    readonly vhost_socket_group?: string | undefined;
    readonly rpc_socket: string;
    readonly device_id?: string | undefined;
    readonly track_written?: true | undefined;
  };
  readonly tuning: RequestedTuning;
  /** A connection that is not encrypted was asked for. */
  readonly isPlainConnectionAllowed: boolean;
  /** Replaces what is there. */
  readonly isForced: boolean;
}

export type RequestedMedium =
  | { readonly kind: "file"; readonly sizeBytes: number; readonly isPreallocated: boolean }
  | { readonly kind: "device"; readonly path: string };

export type RequestedKey =
  /** A new key in a file. */
  | { readonly kind: "file" }
  /** A new key in the configuration, wrapped with a new KEK in a file. */
  | { readonly kind: "new-kek" }
  /** A new key in the configuration, wrapped with a KEK that somebody else keeps. */
  | {
      readonly kind: "given-kek";
      readonly path: string;
      readonly isRegularFile: boolean;
      /** The configuration refers to a credential of the service with this name instead of the file. */
      readonly credential: string | undefined;
    }
  | { readonly kind: "none" };

/** A file or pipe with a secret, which the configuration refers to. */
export interface SecretFile {
  readonly path: string;
  readonly encoding: "plaintext" | "base64";
  readonly isRegularFile: boolean;
}

interface Filling {
  readonly autofetch: boolean;
}

export type RequestedSource =
  | { readonly kind: "none" }
  | (Filling & { readonly kind: "raw"; readonly path: string; readonly copyOnRead: boolean })
  | (Filling & {
      readonly kind: "archive";
      readonly store: RequestedStore;
      readonly kek: SecretFile | undefined;
    })
  | (Filling & {
      readonly kind: "remote";
      readonly address: string;
      readonly psk: { readonly identity: string; readonly secret: SecretFile } | undefined;
    });

export type RequestedStore =
  | { readonly kind: "folder"; readonly path: string }
  | {
      readonly kind: "s3";
      readonly bucket: string;
      readonly prefix: string | undefined;
      readonly region: string | undefined;
      readonly endpoint: string | undefined;
      readonly isPathStyle: boolean;
      readonly caFile: string | undefined;
      readonly credentials: RequestedCredentials;
    };

export type RequestedCredentials =
  /** Names of places where the machine has them. */
  | { readonly kind: "machine"; readonly places: readonly string[] }
  | {
      readonly kind: "files";
      readonly accessKeyId: SecretFile;
      readonly secretAccessKey: SecretFile;
      readonly sessionToken: SecretFile | undefined;
    };

export interface RequestedTuning {
  readonly num_queues: number;
  readonly queue_size: number;
  readonly seg_size_max: number;
  readonly seg_count_max: number;
  readonly poll_timeout_us: number;
  readonly io_engine: "io_uring" | "sync";
  readonly write_through: boolean;
  readonly cpus?: readonly number[] | undefined;
}

/** All secrets that the configuration will refer to and that are there already, by their names in it. */
export function secretFilesOf({
  source,
}: Pick<DiskRequest, "source">): ReadonlyMap<string, SecretFile> {
  const files = new Map<string, SecretFile>();
  if (source.kind === "archive") {
    if (source.kek !== undefined) {
      files.set("archive_kek", source.kek);
    }
    if (source.store.kind === "s3" && source.store.credentials.kind === "files") {
      const { accessKeyId, secretAccessKey, sessionToken } = source.store.credentials;
      files.set("access_key_id", accessKeyId).set("secret_access_key", secretAccessKey);
      if (sessionToken !== undefined) {
        files.set("session_token", sessionToken);
      }
    }
  } else if (source.kind === "remote" && source.psk !== undefined) {
    files.set("psk", source.psk.secret);
  }
  return files;
}
