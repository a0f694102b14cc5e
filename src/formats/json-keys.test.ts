import { expect, test } from "bun:test";
import { findRepeatedKey } from "./json-keys.ts";

test("repeated keys: one in the same object is found, also when it is escaped", () => {
  expect(findRepeatedKey('{"a":1,"b":2,"a":3}')).toBe("a");
  expect(findRepeatedKey('{"a":1, "\\u0061" : 3}')).toBe("a");
  expect(findRepeatedKey('[{"x":{"b":1,"b":2}}]')).toBe("b");
});

test("repeated keys: the same key in other objects, and as a value, is none", () => {
  expect(findRepeatedKey('{"a":{"a":[{"a":1},{"a":2}]},"b":"a"}')).toBeUndefined();
  expect(findRepeatedKey('{"a":"a","b":["a","a"]}')).toBeUndefined();
});

test("repeated keys: brackets, colons and quotes in text are no structure", () => {
  expect(findRepeatedKey('{"a":"}{\\"a\\":1,[","b":"\\\\","c":1}')).toBeUndefined();
  expect(findRepeatedKey('{"a":"\\\\","a":1}')).toBe("a");
});

test("repeated keys: names that objects inherit are keys like others", () => {
  expect(findRepeatedKey('{"__proto__":1,"constructor":2}')).toBeUndefined();
  expect(findRepeatedKey('{"__proto__":1,"__proto__":2}')).toBe("__proto__");
});
