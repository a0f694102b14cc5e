/** Sizes as people write them: bytes with an optional K, M, G or T (powers of 1024). */
import { UbiError } from "../errors.ts";

/** @throws UbiError E_USAGE */
export function sizeArgument(flag: string, text: string): number {
  const parts = /^(\d{1,16})([KMGT]?)$/i.exec(text);
  const exponent = "KMGT".indexOf(parts?.[2]?.toUpperCase() || "?") + 1;
  const bytes = Number(parts?.[1]) * 1024 ** exponent;
  if (parts === null || !Number.isSafeInteger(bytes)) {
    throw new UbiError("E_USAGE", `${flag}: ${JSON.stringify(text)} is no size, such as 512 or 4K`);
  }
  return bytes;
}
