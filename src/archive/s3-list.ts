/** One page of an answer to ListObjectsV2. */
import type { ObjectEntry } from "./object-store.ts";
import { childText, parseXml } from "./s3-xml.ts";

export interface ListPage {
  /** Keys as the bucket has them, with the prefix. */
  readonly entries: readonly ObjectEntry[];
  /** Where the next page begins, if there is one. */
  readonly continuation: string | undefined;
}

/** undefined: this is no such page. */
export function readListPage(body: Uint8Array): ListPage | undefined {
  const root = parseXml(new TextDecoder().decode(body));
  if (root?.name !== "ListBucketResult") {
    return undefined;
  }
  const entries: ObjectEntry[] = [];
  for (const child of root.children) {
    if (child.name === "Contents") {
      const key = childText(child, "Key");
      const size = childText(child, "Size");
      if (key === undefined || size === undefined || !/^\d{1,15}$/.test(size)) {
        return undefined;
      }
      entries.push({ key, sizeBytes: Number(size) });
    }
  }
  const isTruncated = childText(root, "IsTruncated") === "true";
  const continuation = childText(root, "NextContinuationToken");
  if (isTruncated && (continuation === undefined || continuation === "")) {
    return undefined; // the rest of the list would be missing silently
  }
  return { entries, continuation: isTruncated ? continuation : undefined };
}
