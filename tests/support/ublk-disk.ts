/** A disk for a ublk guest: its configuration and files on a file system that the guest mounts at /data. */
import { mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { BUILD_FOLDER } from "./guest-boot.ts";
import { makeGuestImage } from "./guest-image.ts";
import { makeDataDisk } from "./ublk-guest.ts";

const MIB = 2 ** 20;

export interface UblkDiskOptions {
  readonly kind: "encrypted" | "plain";
  readonly sizeMiB: number;
  /** An ext4 image with random files of these sizes, from which the disk is fetched lazily. */
  readonly imageFileBytes?: readonly number[];
  /** Left out: /data/disk.raw. */
  readonly dataPath?: string;
  /** Further lines of `[device]`. */
  readonly device?: string;
  /** Further sections. */
  readonly sections?: string;
}

export class UblkDisk implements Disposable {
  readonly #folder: string;
  /** The image of /data. */
  readonly path: string;

  private constructor(folder: string) {
    this.#folder = folder;
    this.path = join(folder, "data.img");
  }

  static async make(options: UblkDiskOptions): Promise<UblkDisk> {
    mkdirSync(BUILD_FOLDER, { recursive: true });
    const disk = new UblkDisk(mkdtempSync(join(BUILD_FOLDER, "ublk-disk-")));
    try {
      await disk.#fill(options);
      return disk;
    } catch (error) {
      disk[Symbol.dispose]();
      throw error;
    }
  }

  [Symbol.dispose](): void {
    rmSync(this.#folder, { recursive: true, force: true });
  }

  // --- internal ---

  async #fill(options: UblkDiskOptions): Promise<void> {
    const tree = join(this.#folder, "tree");
    mkdirSync(tree);
    const write = (name: string, content: string | Uint8Array) =>
      writeFileSync(join(tree, name), content, { mode: 0o600 });
    write("disk.toml", configuration(options));
    write("key", crypto.getRandomValues(new Uint8Array(64)));
    write("disk.raw", "");
    truncateSync(join(tree, "disk.raw"), options.sizeMiB * MIB);
    if (options.imageFileBytes !== undefined) {
      const fileBytes = options.imageFileBytes;
      const sizeBytes = (options.sizeMiB / 2) * MIB;
      await makeGuestImage({ path: join(tree, "image.raw"), sizeBytes, fileBytes });
    }
    const sizeBytes = 2 * options.sizeMiB * MIB + 64 * MIB;
    await makeDataDisk({ path: this.path, sizeBytes, tree });
    rmSync(tree, { recursive: true });
  }
}

// --- internal ---

function configuration(options: UblkDiskOptions): string {
  const isEncrypted = options.kind === "encrypted";
  const isLazy = options.imageFileBytes !== undefined;
  const permission = isEncrypted ? "allow_secret_over_regular_file" : "allow_unencrypted_disk";
  const lines = [
    `[device]\ndata_path = "${options.dataPath ?? "/data/disk.raw"}"`,
    isLazy ? `metadata_path = "/data/metadata"` : "",
    options.device ?? "",
    isLazy ? `[stripe_source]\ntype = "raw"\nimage_path = "/data/image.raw"` : "",
    isEncrypted ? `[encryption]\nxts_key.ref = "disk"` : "",
    isEncrypted ? `[secrets.disk]\nsource.file = "/data/key"` : "",
    `[danger_zone]\nenabled = true\n${permission} = true`,
    options.sections ?? "",
  ];
  return `${lines.join("\n")}\n`;
}
