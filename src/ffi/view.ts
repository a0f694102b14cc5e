/**
 * Element access for typed arrays whose index is known to be in range. One function per element type
 * keeps every access site monomorphic, and the JIT inlines them.
 */

export function u8(view: Uint8Array, index: number): number {
  return view[index] as number;
}

export function u16(view: Uint16Array, index: number): number {
  return view[index] as number;
}

export function i32(view: Int32Array, index: number): number {
  return view[index] as number;
}

export function u32(view: Uint32Array, index: number): number {
  return view[index] as number;
}

export function f64(view: Float64Array, index: number): number {
  return view[index] as number;
}

const TWO_32 = 2 ** 32;

/** A 64-bit little-endian value from its two halves; exact below 2^53. */
export function join64(low: number, high: number): number {
  return high * TWO_32 + low;
}

/** The upper half of a value below 2^53. The lower half is `value - high64(value) * 2 ** 32`. */
export function high64(value: number): number {
  return Math.floor(value / TWO_32);
}

/** The lower half of a value below 2^53. */
export function low64(value: number): number {
  return value - Math.floor(value / TWO_32) * TWO_32;
}
