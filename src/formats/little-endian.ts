/**
 * 64-bit little-endian fields. Sizes, offsets and addresses become numbers at once and are refused at 2^53
 * and above; masks of feature bits stay bigint, since bit 63 is theirs to use.
 */
import { assert, UbiError } from "../errors.ts";

export function viewBytes(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** A size, offset or address. @throws UbiError E_PROTOCOL when a peer names one of 2^53 or more */
export function readNumber64(view: DataView, offset: number, what: string): number {
  const value = view.getUint32(offset + 4, true) * 2 ** 32 + view.getUint32(offset, true);
  if (!Number.isSafeInteger(value)) {
    const shown = view.getBigUint64(offset, true).toString(16);
    throw new UbiError("E_PROTOCOL", `${what} 0x${shown} is out of range: it must be below 2^53`);
  }
  return value;
}

/** @param value a whole number below 2^53 */
export function writeNumber64(view: DataView, offset: number, value: number): void {
  assert(Number.isSafeInteger(value), "a 64-bit field is a whole number below 2^53");
  assert(value >= 0, "a 64-bit field is not negative");
  view.setUint32(offset, value % 2 ** 32, true);
  view.setUint32(offset + 4, Math.floor(value / 2 ** 32), true);
}

/** A number that was read as one of 64 bits, for a message: what was rounded is not shown as if it were exact. */
export function numberText(value: number): string {
  return value <= Number.MAX_SAFE_INTEGER ? String(value) : "2^53 or more";
}
