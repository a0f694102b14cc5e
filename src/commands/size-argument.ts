/**
 * Sizes as people write them: bytes with an optional K, M, G or T, which are powers of 1024, as are KiB and so on;
 * KB, MB, GB and TB are powers of 1000. A fraction has to come to whole bytes.
 */
import { UbiError } from "../errors.ts";

/** @throws UbiError E_USAGE */
export function sizeArgument(flag: string, text: string): number {
  const parts = /^(\d{1,16})(?:\.(\d{1,9}))?(?:([KMGT])(B|iB)?|B)?$/i.exec(text);
  const [, whole = "", fraction = "", letter = "", suffix = ""] = parts ?? [];
  const base = suffix.toLowerCase() === "b" ? 1000n : 1024n;
  const unit = letter === "" ? 1n : base ** BigInt("KMGT".indexOf(letter.toUpperCase()) + 1);
  const scale = 10n ** BigInt(fraction.length);
  const scaled = BigInt(`${whole}${fraction}`) * unit;
  const bytes = Number(scaled / scale);
  if (parts === null || !Number.isSafeInteger(bytes)) {
    const examples = "such as 512, 4K or 1.5G";
    throw new UbiError("E_USAGE", `${flag}: ${JSON.stringify(text)} is no size, ${examples}`);
  }
  if (scaled % scale !== 0n) {
    throw new UbiError("E_USAGE", `${flag}: ${text} is no whole number of bytes`);
  }
  return bytes;
}
