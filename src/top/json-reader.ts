/** Reading the members of JSON that another program made: what is not as expected is undefined, never an error. */

/** The object's members; none where `value` is no object. */
export function recordOf(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? { ...value } : {};
}

/** The array's first `limit` elements; none where `value` is no array. */
export function listOf(value: unknown, limit: number): readonly unknown[] {
  return Array.isArray(value) ? value.slice(0, limit) : [];
}

/** A count or an amount: a finite number that is not negative. */
export function amountOf(value: unknown): number | undefined {
  return typeof value === "number" && Number.isFinite(value) && value >= 0 ? value : undefined;
}

/** A short text that is safe to show: control characters become question marks. */
export function textOf(value: unknown, lengthMax: number): string | undefined {
  return typeof value === "string" ? printable(value.slice(0, lengthMax)) : undefined;
}

/** `text` without anything that a terminal would take for a command. */
export function printable(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, "?");
}
