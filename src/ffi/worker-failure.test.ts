import { expect, test } from "bun:test";
import { failureLine } from "./worker-failure.ts";

test.each([
  { name: "a plain message", message: "boom", line: "boom" },
  { name: "no message", message: "", line: "for an unknown reason" },
  {
    name: "a message in an excerpt of the code",
    message:
      "2 | // @bun\n3 | class A extends Error{}\n\nAssertionError: assertion failed: x holds\n      at e (/$bunfs/root/main.js:3:168)\n",
    line: "AssertionError: assertion failed: x holds",
  },
  {
    name: "an error of the system",
    message: "\nUbiError: cannot map 4096 bytes: ENOMEM (out of memory)\n code: E_MEMORY",
    line: "UbiError: cannot map 4096 bytes: ENOMEM (out of memory)",
  },
])("failure line: of $name", ({ message, line }) => {
  expect(failureLine(message)).toBe(line);
});
