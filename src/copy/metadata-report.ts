/**
 * What there is to tell about a disk's metadata, from the metadata file alone: the disk and its source are asked
 * for their size only, and need not be there. Nothing is locked, so a disk may be in use.
 */
import { existsSync } from "node:fs";
import type { DeviceConfig } from "../config/index.ts";
import { openDiskCipher } from "../device/disk-cipher.ts";
import { assert, assertNever, UbiError } from "../errors.ts";
import {
  countStripes,
  METADATA_VERSION,
  type Metadata,
  STRIPE_FLAG,
  stripeBytes,
} from "../formats/metadata.ts";
import { loadMetadata, type MetadataFile } from "../stripes/metadata-file.ts";
import { InputFile } from "./input-file.ts";
import { runText, stripeRuns } from "./stripe-runs.ts";

export interface MetadataReport {
  readonly dataPath: string;
  /** Undefined when the data file cannot be had. */
  readonly dataBytes: number | undefined;
  readonly source: DeviceConfig["stripeSource"];
  /** Of a raw image that can be had. */
  readonly imageBytes: number | undefined;
  readonly metadata: Metadata;
}

/** @throws UbiError E_METADATA, E_DISK_OPEN, E_DISK_IO, E_CIPHER; UbiErrors of secrets */
export async function reportMetadata(config: DeviceConfig): Promise<MetadataReport> {
  const { dataPath, metadataPath } = config.device;
  const source = config.stripeSource;
  assert(metadataPath !== undefined, "the path was demanded when the configuration was read");
  if (!existsSync(metadataPath)) {
    const hint = "run init-metadata first";
    throw new UbiError("E_DISK_OPEN", `there is no metadata ${metadataPath} yet; ${hint}`);
  }
  using file = new InputFile(metadataPath, "metadata");
  using cipher = await openDiskCipher(config);
  return {
    dataPath,
    dataBytes: sizeOf(dataPath),
    source,
    imageBytes: source?.type === "raw" ? sizeOf(source.imagePath) : undefined,
    metadata: await loadLiveMetadata({
      path: metadataPath,
      fd: file.fd,
      sizeBytes: file.sizeBytes,
      cipher,
    }),
  };
}

/** Seven lines, in pieces that can be written as they come. */
export function* textOf(report: MetadataReport): Generator<string> {
  const { metadata } = report;
  yield `data file: ${report.dataPath} (${sizeText(report.dataBytes)})\n`;
  yield `source: ${sourceText(report)}\n`;
  yield `metadata version: ${VERSION}\nstripe size: ${stripeBytes(metadata)} bytes\n`;
  for (const { name, flag } of LISTS) {
    yield `${LABELS[name]} stripes: `;
    yield* inPieces(stripeRuns(metadata.flags, flag), runText, ", ");
    yield "\n";
  }
}

/** One line of JSON with counts and percentages, in pieces. */
export function* jsonOf(report: MetadataReport): Generator<string> {
  const { metadata } = report;
  const { stripeCount } = metadata;
  const counts = countStripes(metadata.flags);
  const { hasSource, unfetched } = counts;
  const head = {
    data_file: { path: report.dataPath, bytes: report.dataBytes ?? null },
    source: sourceFacts(report),
    metadata_version: VERSION,
    stripe_bytes: stripeBytes(metadata),
    stripe_count: stripeCount,
    unfetched: { count: unfetched, percent: percentOf(unfetched, stripeCount) },
    fetch_percent: hasSource === 0 ? 100 : percentOf(hasSource - unfetched, hasSource),
  };
  yield JSON.stringify(head).slice(0, -1);
  for (const { name, flag } of LISTS) {
    const count = counts[name];
    const percent = percentOf(count, stripeCount);
    yield `,"${KEYS[name]}":{"count":${count},"percent":${percent},"ranges":[`;
    yield* inPieces(
      stripeRuns(metadata.flags, flag),
      ({ first, last }) => `[${first},${last}]`,
      ",",
    );
    yield "]}";
  }
  yield "}\n";
}

/**
 * Reads metadata that a backend may be using.
 * @throws UbiError E_METADATA, E_DISK_IO, E_CIPHER
 */
export async function loadLiveMetadata(file: MetadataFile): Promise<Metadata> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return loadMetadata(file);
    } catch (error) {
      if (!(error instanceof UbiError && error.code === "E_METADATA" && attempt < ATTEMPTS)) {
        throw error;
      }
    }
    await Bun.sleep(RETRY_MS);
  }
}

// --- internal ---

const VERSION = `${METADATA_VERSION.major}.${METADATA_VERSION.minor}`;
const LISTS = [
  { name: "fetched", flag: STRIPE_FLAG.FETCHED },
  { name: "written", flag: STRIPE_FLAG.WRITTEN },
  { name: "hasSource", flag: STRIPE_FLAG.HAS_SOURCE },
] as const;
const LABELS = { fetched: "fetched", written: "written", hasSource: "has-source" } as const;
const KEYS = { fetched: "fetched", written: "written", hasSource: "has_source" } as const;
const PIECE_CHARACTERS = 1 << 16;
/** A backend may be writing the very sector that is being read: its next reading is whole. */
const ATTEMPTS = 5;
const RETRY_MS = 20;

/** Undefined for whatever reason it cannot be opened: that is no matter here. */
function sizeOf(path: string): number | undefined {
  try {
    using file = new InputFile(path);
    return file.sizeBytes;
  } catch (error) {
    if (error instanceof UbiError) {
      return undefined;
    }
    throw error;
  }
}

function sizeText(bytes: number | undefined): string {
  return bytes === undefined ? "not available" : `${bytes} bytes`;
}

function sourceText({ source, imageBytes }: MetadataReport): string {
  if (source === undefined) {
    return "None";
  }
  switch (source.type) {
    case "raw":
      return `raw (path: ${source.imagePath}, size: ${sizeText(imageBytes)})`;
    case "remote": {
      const identity = source.psk?.identity ?? "None";
      return `remote (address: ${source.address}, psk_identity: ${identity})`;
    }
    case "archive": {
      if (source.storage === "filesystem") {
        return `archive filesystem (path: ${source.path})`;
      }
      const { bucket, prefix, region } = source;
      return `archive s3 (bucket: ${bucket}, prefix: ${prefix ?? "None"}, region: ${region ?? "None"})`;
    }
    default:
      return assertNever(source);
  }
}

function sourceFacts({
  source,
  imageBytes,
}: MetadataReport): Readonly<Record<string, unknown>> | null {
  if (source === undefined) {
    return null;
  }
  switch (source.type) {
    case "raw":
      return { type: "raw", path: source.imagePath, bytes: imageBytes ?? null };
    case "remote": {
      return {
        type: "remote",
        address: source.address,
        psk_identity: source.psk?.identity ?? null,
      };
    }
    case "archive": {
      if (source.storage === "filesystem") {
        return { type: "archive", storage: "filesystem", path: source.path };
      }
      const { bucket, prefix = null, region = null } = source;
      return { type: "archive", storage: "s3", bucket, prefix, region };
    }
    default:
      return assertNever(source);
  }
}

/** Rounded down to hundredths: 100 is said of all, and of nothing less. */
function percentOf(count: number, total: number): number {
  return total === 0 ? 0 : Math.floor((count / total) * 10_000) / 100;
}

function* inPieces<Item>(
  items: Iterable<Item>,
  show: (item: Item) => string,
  separator: string,
): Generator<string> {
  let piece = "";
  let isFirst = true;
  for (const item of items) {
    piece += isFirst ? show(item) : `${separator}${show(item)}`;
    isFirst = false;
    if (piece.length >= PIECE_CHARACTERS) {
      yield piece;
      piece = "";
    }
  }
  yield piece;
}
