/** Renames the keys of a checked document to the names of the code, mechanically. */
import type { Settings } from "./schema.ts";
import { isTable } from "./toml.ts";

/** `{ data_path: "x" }` to `{ dataPath: "x" }`, at every depth. */
export function camelKeys<T>(value: T): Settings<T>;
export function camelKeys(value: unknown): unknown {
  if (Array.isArray(value)) {
    return value.map((item) => camelKeys(item));
  }
  if (!isTable(value)) {
    return value;
  }
  const renamed: Record<string, unknown> = {};
  for (const [key, inner] of Object.entries(value)) {
    renamed[key.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase())] =
      camelKeys(inner);
  }
  return renamed;
}
