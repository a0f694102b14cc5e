/** The metadata of a disk with lazy stripes: that it is there, can be read, and is that of this disk and source. */

import { closeSync, constants, openSync, statSync } from "node:fs";
import type { DeviceConfig } from "../config/index.ts";
import { InputFile } from "../copy/input-file.ts";
import { loadLiveMetadata } from "../copy/metadata-report.ts";
import { XtsCipher } from "../disk/cipher.ts";
import { errorText } from "../errors.ts";
import { countStripes, type Metadata, stripeBytes, stripesOf } from "../formats/metadata.ts";
import { SECTOR_BYTES } from "../formats/virtio-blk.ts";
import type { CheckContext } from "./check-context.ts";
import type { Finding } from "./finding.ts";
import { operatingErrorText } from "./operating-error.ts";

export async function* examineMetadata(context: CheckContext): AsyncGenerator<Finding> {
  const config = await context.config();
  const path = config.device.metadataPath;
  if (path === undefined) {
    return;
  }
  const file = fileFinding(path);
  yield file;
  if (file.verdict !== "ok") {
    return;
  }
  const answer = await context.secretsOf("encryption");
  if (answer.kind === "unread") {
    yield { check: "content", verdict: "skip", found: `needs the key of the disk, ${answer.why}` };
    return;
  }
  const { encryption } = config;
  using cipher =
    encryption === undefined
      ? undefined
      : XtsCipher.create(answer.secrets.get(encryption.xtsKey).bytes);
  try {
    using input = new InputFile(path, "metadata");
    const { fd, sizeBytes } = input;
    context.metadata = await loadLiveMetadata({ path, fd, sizeBytes, cipher });
  } catch (error) {
    yield {
      check: "content",
      verdict: "fail",
      found: operatingErrorText(error),
      advice: CONTENT_ADVICE,
    };
    return;
  }
  yield* contentFindings(context.metadata, {
    diskBytes: sizeOf(config.device.dataPath),
    hasSource: config.stripeSource !== undefined,
  });
}

/** @param disk `diskBytes` is undefined when the disk cannot be had */
export function* contentFindings(
  metadata: Metadata,
  disk: { readonly diskBytes: number | undefined; readonly hasSource: boolean },
): Generator<Finding> {
  const { stripeCount, stripeShift, flags } = metadata;
  const { unfetched, hasSource } = countStripes(flags);
  const found = `${stripeCount} stripes of ${stripeBytes(metadata)} bytes; ${hasSource - unfetched} of ${hasSource} in the source are fetched`;
  yield { check: "content", verdict: "ok", found };
  if (disk.diskBytes !== undefined) {
    const wanted = stripesOf(disk.diskBytes / SECTOR_BYTES, stripeShift);
    if (wanted !== stripeCount) {
      yield {
        check: "fit",
        verdict: "fail",
        found: `the disk has ${wanted} stripes, its metadata ${stripeCount}`,
        advice: "name the metadata of this disk, or make the disk as large as it was",
      };
    }
  }
  if (unfetched > 0 && !disk.hasSource) {
    yield {
      check: "source",
      verdict: "fail",
      found: `${unfetched} stripes are still to be fetched, and there is no [stripe_source]`,
      advice: "add the source that the metadata was made with",
    };
  }
}

// --- internal ---

const CONTENT_ADVICE =
  "run ubiblk init-metadata for a new disk; else bring it back from a copy, or name the key and the file that belong together";
const EMPTY_ADVICE = "run ubiblk init-metadata for a new disk, or bring it back from a copy";

function fileFinding(path: string): Finding {
  const check = "file";
  try {
    const stats = statSync(path);
    if (!stats.isFile() && !stats.isBlockDevice()) {
      const advice = "name another path";
      return {
        check,
        verdict: "fail",
        found: `${path} is neither a file nor a block device`,
        advice,
      };
    }
    // As a backend does, which writes to it. Nothing is written here.
    const access = stats.isFile() ? constants.O_RDWR : constants.O_RDONLY;
    closeSync(openSync(path, access | constants.O_NONBLOCK));
    if (stats.isFile() && stats.size === 0) {
      return { check, verdict: "fail", found: `${path} is empty`, advice: EMPTY_ADVICE };
    }
    const mode = (stats.mode & 0o7777).toString(8).padStart(4, "0");
    return { check, verdict: "ok", found: `${path}, ${stats.size} bytes, mode ${mode}` };
  } catch (error) {
    const isMissing = error instanceof Error && "code" in error && error.code === "ENOENT";
    const advice = isMissing ? "run ubiblk init-metadata" : "give this user access to it";
    return {
      check,
      verdict: "fail",
      found: `cannot open metadata ${path}: ${errorText(error)}`,
      advice,
    };
  }
}

function sizeOf(path: DeviceConfig["device"]["dataPath"]): number | undefined {
  try {
    using file = new InputFile(path);
    return file.sizeBytes;
  } catch (error) {
    operatingErrorText(error);
    return undefined; // told by the subject "data_path"
  }
}
