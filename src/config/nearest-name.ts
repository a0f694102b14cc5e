/** Finds the name that a mistyped one probably meant. */

/**
 * Returns the candidate that takes the fewest single-letter changes (an exchange of neighbours is
 * one), rather one that is as long as `name`; when none is near, the only one that begins with `name`; or nothing that
 * would be worth a suggestion.
 */
export function nearestName(name: string, names: Iterable<string>): string | undefined {
  const candidates = [...names];
  const isAsLong = (candidate: string | undefined) => candidate?.length === name.length;
  let nearest: string | undefined;
  let nearestDistance = Math.max(1, Math.floor(name.length / 3)) + 1;
  for (const candidate of candidates) {
    if (Math.abs(candidate.length - name.length) < nearestDistance) {
      const distance = editDistance(name, candidate);
      const isTie = distance === nearestDistance && nearest !== undefined;
      const isLikelier = isTie && isAsLong(candidate) && !isAsLong(nearest);
      if (distance < nearestDistance || isLikelier) {
        nearest = candidate;
        nearestDistance = distance;
      }
    }
  }
  return nearest ?? onlyBegunBy(name, candidates);
}

// --- internal ---

/** Fewer letters (dashes included) say nothing. */
const BEGINNING_LENGTH_MIN = 3;

function onlyBegunBy(name: string, candidates: readonly string[]): string | undefined {
  const begun = candidates.filter((candidate) => candidate.startsWith(name));
  return name.length >= BEGINNING_LENGTH_MIN && begun.length === 1 ? begun[0] : undefined;
}

/** Longer names are cut: they are not typing mistakes. */
const NAME_LENGTH_MAX = 64;

function editDistance(left: string, right: string): number {
  const a = left.slice(0, NAME_LENGTH_MAX);
  const b = right.slice(0, NAME_LENGTH_MAX);
  let beforePrevious: readonly number[] = [];
  let previous: readonly number[] = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i += 1) {
    const row: number[] = [i];
    for (let j = 1; j <= b.length; j += 1) {
      const isSame = a[i - 1] === b[j - 1];
      const replaced = at(previous, j - 1) + (isSame ? 0 : 1);
      const isSwap = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1];
      const swapped = isSwap ? at(beforePrevious, j - 2) + 1 : Number.POSITIVE_INFINITY;
      row.push(Math.min(replaced, swapped, at(previous, j) + 1, at(row, j - 1) + 1));
    }
    beforePrevious = previous;
    previous = row;
  }
  return at(previous, b.length);
}

function at(row: readonly number[], index: number): number {
  return row[index] ?? Number.POSITIVE_INFINITY;
}
