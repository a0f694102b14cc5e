import { expect, test } from "bun:test";
import { readdirSync, readFileSync, statSync, symlinkSync } from "node:fs";
import { ConfigFolder } from "../../tests/support/config-folder.ts";
import { replaceFile } from "./output-file.ts";

test("the file is replaced, readable for others, and what a killed run left is gone", () => {
  using folder = new ConfigFolder({ "m.prom": "old", ".m.prom.0123456789ab.tmp": "half" });
  replaceFile(folder.file("m.prom"), "new\n");
  expect(readdirSync(folder.path)).toEqual(["m.prom"]);
  expect(readFileSync(folder.file("m.prom"), "utf8")).toBe("new\n");
  expect(statSync(folder.file("m.prom")).mode & 0o777).toBe(0o644 & ~process.umask());
});

test("a symbolic link is replaced, not what it leads to", () => {
  using folder = new ConfigFolder({ other: "kept" });
  symlinkSync("other", folder.file("m.prom"));
  replaceFile(folder.file("m.prom"), "new\n");
  expect(readFileSync(folder.file("other"), "utf8")).toBe("kept");
  expect(readFileSync(folder.file("m.prom"), "utf8")).toBe("new\n");
});

test("a folder is no file: nothing is left beside it", () => {
  using folder = new ConfigFolder();
  expect(() => replaceFile(folder.path, "new\n")).toThrow("it is not a regular file");
  expect(readdirSync(folder.path)).toEqual([]);
});
