/** Makes archives of images for tests of those who read them: small, in one thread, object by object. */

import { newArchiveKeys } from "../../src/archive/archive-keys.ts";
import {
  type Compression,
  encodeMapping,
  encodeMetadata,
  MAPPING_KEY,
  METADATA_KEY,
} from "../../src/archive/archive-manifest.ts";
import type { ObjectStore } from "../../src/archive/object-store.ts";
import { StripeMap } from "../../src/archive/stripe-map.ts";
import { StripeEncoder, stripeObjectKey } from "../../src/archive/stripe-object.ts";
import { SECTOR_BYTES } from "../../src/formats/virtio-blk.ts";

export interface ArchiveToBuild {
  readonly stripeSectors: number;
  /** The disk: it may end inside a stripe. */
  readonly image: Uint8Array;
  readonly isEncrypted?: boolean;
  readonly compression?: Compression;
  /** How it really is compressed: another program's compressor gives other bytes, too. */
  readonly compressedBy?: Compression;
  readonly kek?: Uint8Array;
  /** Stripes that the archive does not have. */
  readonly absent?: readonly number[];
}

/** Returns the keys of the objects of stripes, by stripe; undefined where there is none. */
export async function buildArchive(
  store: ObjectStore,
  options: ArchiveToBuild,
): Promise<readonly (string | undefined)[]> {
  const { stripeSectors, image, kek, compression = { kind: "none" }, absent = [] } = options;
  const stripeBytes = stripeSectors * SECTOR_BYTES;
  const keys = newArchiveKeys(options.isEncrypted === true);
  const map = StripeMap.create(Math.ceil(image.length / stripeBytes));
  const objects: (string | undefined)[] = [];
  const encoding = options.compressedBy ?? compression;
  using encoder = new StripeEncoder({ compression: encoding, xtsKey: keys.xtsKey, stripeSectors });
  for (let stripe = 0; stripe < map.stripeEnd; stripe++) {
    objects.push(undefined);
    if (absent.includes(stripe)) {
      continue;
    }
    const data = new Uint8Array(stripeBytes);
    data.set(image.subarray(stripe * stripeBytes, (stripe + 1) * stripeBytes));
    const encoded = encoder.encode(stripe, data);
    if (encoded === "zero") {
      map.setZero(stripe);
      continue;
    }
    map.setStored(stripe, encoded.hash);
    const key = stripeObjectKey(map.hashHex(stripe));
    objects[stripe] = key;
    await store.put(key, encoded.bytes.slice());
  }
  const sizeBytes = image.length;
  const manifest = { stripeSectors, compression, keys, kek };
  await store.put(METADATA_KEY, encodeMetadata(manifest));
  await store.put(MAPPING_KEY, encodeMapping({ map, stripeSectors, sizeBytes, keys }));
  await store.sync();
  return objects;
}
