/** The head of an HTTP request, as far as a scrape needs it: method, path and what the client accepts. */

export interface HttpRequest {
  readonly method: string;
  /** Without the query. */
  readonly path: string;
  /** The header Accept; empty without one. */
  readonly accept: string;
}

/** The longest head that is read. */
export const HEAD_BYTES_MAX = 8192;

/** `undefined` until the head is whole. @param head as it came, a character a byte */
export function parseHead(head: string): HttpRequest | "invalid" | undefined {
  const end = /\r?\n\r?\n/.exec(head);
  if (end === null) {
    return undefined;
  }
  const [line = "", ...fields] = head.slice(0, end.index).split(/\r?\n/);
  const match = /^([A-Z]{1,16}) (\/[^\s?#]*)(?:\?\S*)? HTTP\/1\.[01]$/.exec(line);
  const [, method, path] = match ?? [];
  if (method === undefined || path === undefined) {
    return "invalid";
  }
  return { method, path, accept: fieldOf(fields, "accept") };
}

// --- internal ---

/** Of a field that stands there more than once, all values. */
function fieldOf(fields: readonly string[], name: string): string {
  return fields
    .map((field) => [field.slice(0, field.indexOf(":")), field.slice(field.indexOf(":") + 1)])
    .filter(([key]) => key?.toLowerCase() === name)
    .map(([, value = ""]) => value.trim())
    .join(",");
}
