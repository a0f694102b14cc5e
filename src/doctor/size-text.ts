/** Amounts of bytes for people. */

const UNITS = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB"];

/** `512 bytes`, `1.5 GiB`. */
export function sizeText(bytes: number): string {
  const exponent = bytes < 1024 ? 0 : Math.min(5, Math.floor(Math.log2(bytes) / 10));
  const value = bytes / 1024 ** exponent;
  return `${Number.isInteger(value) ? value : value.toFixed(1)} ${UNITS[exponent]}`;
}
