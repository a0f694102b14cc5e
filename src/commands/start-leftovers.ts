/** Memory of a start: a program that serves for months needs little of what its start needed. */

/**
 * Gives back code that ran once and what it left on the heap. From here on little is allocated, so nothing else would
 * collect it. Code that is needed again is made again.
 */
export function dropStartLeftovers(): void {
  Bun.shrink();
  Bun.gc(true);
}
