/** A file or a stream with something wrong in it, as chance will have it. */
import type { SeededRandom } from "./random.ts";

/** Bytes that mean something to one parser or another. */
const TELLING = [
  0x00, 0x01, 0x0a, 0x22, 0x2d, 0x3d, 0x5b, 0x7b, 0x7f, 0x80, 0x9f, 0xbb, 0xdf, 0xff,
];

export function changedBytes(bytes: Uint8Array, random: SeededRandom): Uint8Array {
  let changed = Uint8Array.from(bytes);
  for (let i = random.between(1, 3); i > 0; i--) {
    changed = changedOnce(changed, random);
  }
  return changed;
}

function changedOnce(
  bytes: Uint8Array<ArrayBuffer>,
  random: SeededRandom,
): Uint8Array<ArrayBuffer> {
  // Most of what is checked stands at the beginning.
  const reach = random.oneIn(2) ? Math.min(bytes.length, 128) : bytes.length;
  const at = random.below(reach + 1);
  const count = random.pick([1, 1, 2, 4, 8, 64, 512]);
  switch (random.below(7)) {
    case 0: // one bit
      bytes[at] = (bytes[at] ?? 0) ^ (1 << random.below(8));
      return bytes;
    case 1:
      bytes.fill(TELLING[random.below(TELLING.length)] ?? 0, at, at + count);
      return bytes;
    case 2:
      return bytes.slice(0, at);
    case 3: // some are missing
      return Uint8Array.from([...bytes.subarray(0, at), ...bytes.subarray(at + count)]);
    case 4: {
      const more = Array.from({ length: count }, () => random.below(256));
      return Uint8Array.from([...bytes.subarray(0, at), ...more, ...bytes.subarray(at)]);
    }
    case 5: // some stand twice
      return Uint8Array.from([...bytes.subarray(0, at + count), ...bytes.subarray(at)]);
    default:
      for (let i = at; i < Math.min(at + count, bytes.length); i++) {
        bytes[i] = random.below(256);
      }
      return bytes;
  }
}
