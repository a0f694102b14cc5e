/** The content of an image, from a seed: made by whole words, since it has many. */
import type { SeededRandom } from "./random.ts";

/** No two sectors are alike. @param bytes a multiple of 4 */
export function randomImage(random: SeededRandom, bytes: number): Uint8Array {
  const words = new Uint32Array(bytes / 4);
  let x = random.between(1, 2 ** 31);
  for (let i = 0; i < words.length; i++) {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    words[i] = x;
  }
  return new Uint8Array(words.buffer);
}
