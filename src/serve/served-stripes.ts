/** What a stripe server's thread needs of the disk it serves, as plain data, and how it is opened there. */
import { XtsCipher } from "../disk/cipher.ts";
import { SECTOR_BYTES } from "../formats/virtio-blk.ts";
import { openRawSource, type RawSourceFile } from "../sources/open-raw-source.ts";
import type { StripeSource } from "../sources/stripe-source.ts";
import { WorkerSource, type WorkerSourceDescription } from "../sources/worker-source.ts";
import { buffersFor, StripeReads } from "./stripe-reads.ts";

/** Cloneable; descriptors and addresses belong to the process. */
export interface ServedStripes {
  /** As clients are told. */
  readonly flags: SharedArrayBuffer;
  readonly stripeSectors: number;
  /** Undefined where an archive is served directly. */
  readonly disk: ServedFile | undefined;
  readonly source: ServedSource | undefined;
  readonly ioEngine: "io_uring" | "sync";
}

interface ServedFile {
  readonly file: RawSourceFile;
  /** Address of the expanded keys, or 0 for a plain disk. */
  readonly cipherContext: number;
}

type ServedSource =
  | { readonly kind: "image"; readonly file: RawSourceFile }
  | { readonly kind: "workers"; readonly description: WorkerSourceDescription };

/** In the thread that is going to serve. @throws UbiError E_MEMORY */
export function openServedStripes(served: ServedStripes): StripeReads {
  const { disk, stripeSectors, ioEngine } = served;
  const stripeBytes = stripeSectors * SECTOR_BYTES;
  const options = { stripeBytes, requestsMax: buffersFor(stripeBytes), ioEngine };
  const context = disk?.cipherContext ?? 0;
  return new StripeReads({
    disk: disk === undefined ? undefined : openRawSource(disk.file, options),
    source: openSource(served.source, options),
    cipher: context === 0 ? undefined : XtsCipher.attach(context),
    diskSectors: (disk?.file.sizeBytes ?? 0) / SECTOR_BYTES,
    stripeSectors,
    flags: new Uint8Array(served.flags),
  });
}

// --- internal ---

function openSource(
  source: ServedSource | undefined,
  options: Parameters<typeof openRawSource>[1],
): StripeSource | undefined {
  switch (source?.kind) {
    case "image":
      return openRawSource(source.file, options);
    case "workers":
      return new WorkerSource(source.description);
    default:
      return undefined;
  }
}
