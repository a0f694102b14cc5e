/** metadata.json */
export type Compression =
  | { readonly kind: "none" }
  | { readonly kind: "zstd"; readonly level: number };

export const HMAC_KEY_BYTES = 32;
