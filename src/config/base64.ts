/**
 * Strict base64 (RFC 4648 section 4) on bytes. Not Buffer's: that one skips what it does not know,
 * and it needs a string, which cannot be wiped.
 */

/** Why a text is no base64; never with the text itself. */
export class Base64Error extends Error {}

/**
 * Decodes standard base64 with padding. ASCII whitespace may stand anywhere (wrapped lines).
 * The caller owns, and wipes, both arrays.
 *
 * @throws Base64Error with the reason and the offset, never with the text.
 */
export function decodeBase64(text: Uint8Array): Uint8Array {
  const out = new Uint8Array(Math.floor((text.length * 3) / 4) + 3);
  try {
    return out.slice(0, decodeInto(text, out));
  } finally {
    out.fill(0);
  }
}

/** How many bytes `text` stands for; undefined when it is no base64. */
export function base64Size(text: Uint8Array): number | undefined {
  try {
    const bytes = decodeBase64(text);
    bytes.fill(0);
    return bytes.length;
  } catch (error) {
    if (!(error instanceof Base64Error)) {
      throw error;
    }
    return undefined;
  }
}

// --- internal ---

const PADDING = 0x3d;

function decodeInto(text: Uint8Array, out: Uint8Array): number {
  let length = 0;
  let group = 0;
  let digits = 0;
  let padding = 0;
  for (const [offset, byte] of text.entries()) {
    if (isWhitespace(byte)) {
      continue;
    }
    const digit = byte === PADDING ? 0 : digitOf(byte);
    if (digit < 0) {
      throw new Base64Error(`character ${offset} is not a base64 digit`);
    }
    if (byte === PADDING) {
      padding += 1;
    } else if (padding > 0) {
      throw new Base64Error(`character ${offset} follows the padding`);
    }
    if (padding > 2 || (padding > 0 && digits % 4 < 2)) {
      throw new Base64Error(`character ${offset} is padding at the wrong place`);
    }
    group = (group << 6) | digit;
    digits += 1;
    if (digits % 4 === 0) {
      length = writeGroup(out, length, group, padding);
      group = 0;
    }
  }
  if (digits % 4 !== 0) {
    throw new Base64Error("it ends in the middle of a group of four characters");
  }
  return length;
}

/** Writes three bytes less those that `padding` stands for; their bits have to be zero. */
function writeGroup(out: Uint8Array, at: number, group: number, padding: number): number {
  const unused = padding === 0 ? 0 : padding === 1 ? 0xff : 0xffff;
  if ((group & unused) !== 0) {
    throw new Base64Error("unused bits before the padding are not zero");
  }
  out[at] = group >>> 16;
  out[at + 1] = (group >>> 8) & 0xff;
  out[at + 2] = group & 0xff;
  return at + 3 - padding;
}

function isWhitespace(byte: number): boolean {
  return byte === 0x20 || byte === 0x09 || byte === 0x0a || byte === 0x0c || byte === 0x0d;
}

function digitOf(byte: number): number {
  if (byte >= 0x41 && byte <= 0x5a) {
    return byte - 0x41;
  }
  if (byte >= 0x61 && byte <= 0x7a) {
    return byte - 0x61 + 26;
  }
  if (byte >= 0x30 && byte <= 0x39) {
    return byte - 0x30 + 52;
  }
  return byte === 0x2b ? 62 : byte === 0x2f ? 63 : -1;
}
