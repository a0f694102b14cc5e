/** What keys of objects look like: the same for all stores, so that a key never leads out of a folder. */
import { assert } from "../errors.ts";

const KEY_LENGTH_MAX = 1024;
const PART_LENGTH_MAX = 200;

/** Whether `key` is parts of letters, digits, `.`, `_` and `-`, joined by `/`; no part is `.` or `..`. */
export function isObjectKey(key: string): boolean {
  return (
    key.length <= KEY_LENGTH_MAX &&
    key
      .split("/")
      .every(
        (part) =>
          part.length <= PART_LENGTH_MAX &&
          /^[A-Za-z0-9._-]+$/.test(part) &&
          part !== "." &&
          part !== "..",
      )
  );
}

/** Keys come from our own code; what a store tells is checked before it becomes one. */
export function assertObjectKey(key: string): void {
  assert(isObjectKey(key), `${JSON.stringify(key)} is the key of an object`);
}

/** A prefix of keys: nothing, or the beginning of a key. */
export function assertKeyPrefix(prefix: string): void {
  assert(prefix === "" || isObjectKey(`${prefix}x`), `${JSON.stringify(prefix)} begins a key`);
}
