import { expect, test } from "bun:test";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { ConfigFolder } from "../../tests/support/config-folder.ts";
import { StagingFolder } from "./staging-folder.ts";

const bytes = (text: string) => new TextEncoder().encode(text);

test("what is published has its place and mode, and nothing else is left", () => {
  using folder = new ConfigFolder();
  const place = folder.file("new/deep");
  {
    using staging = StagingFolder.make(place);
    staging.write("a", bytes("A"));
    staging.write("b", bytes("B"));
    staging.publish(["a", "b"], []);
  }
  expect(readdirSync(place).sort()).toEqual(["a", "b"]);
  expect(readFileSync(join(place, "a"), "utf8")).toBe("A");
  expect(statSync(join(place, "a")).mode & 0o7777).toBe(0o600);
  expect(statSync(place).mode & 0o7777).toBe(0o700);
});

test("without publishing nothing is left, not even the folders", () => {
  using folder = new ConfigFolder({ other: "" });
  {
    using staging = StagingFolder.make(folder.file("new/deep"));
    staging.write("a", bytes("A"));
  }
  expect(readdirSync(folder.path)).toEqual(["other"]);
});

test("a folder that was there stays, also when it was empty", () => {
  using folder = new ConfigFolder();
  StagingFolder.make(folder.path)[Symbol.dispose]();
  expect(readdirSync(folder.path)).toEqual([]);
});

test("a name that appeared meanwhile is kept, and those before it are taken back", () => {
  using folder = new ConfigFolder();
  {
    using staging = StagingFolder.make(folder.path);
    staging.write("a", bytes("new"));
    staging.write("b", bytes("new"));
    folder.write("b", "somebody's");
    expect(() => staging.publish(["a", "b"], [])).toThrow("b is there already");
  }
  expect(readdirSync(folder.path)).toEqual(["b"]);
  expect(readFileSync(folder.file("b"), "utf8")).toBe("somebody's");
});

test("what is retired goes with success, and comes back with a failure", () => {
  using folder = new ConfigFolder({ a: "old", key: "old key" });
  {
    using staging = StagingFolder.make(folder.path);
    staging.write("a", bytes("new"));
    expect(() => staging.publish(["a", "missing"], ["a", "key"])).toThrow("missing");
    expect(readFileSync(folder.file("a"), "utf8")).toBe("old");
    expect(readFileSync(folder.file("key"), "utf8")).toBe("old key");
  }
  {
    using staging = StagingFolder.make(folder.path);
    staging.write("a", bytes("new"));
    staging.publish(["a"], ["a", "key"]);
  }
  expect(readdirSync(folder.path)).toEqual(["a"]);
  expect(readFileSync(folder.file("a"), "utf8")).toBe("new");
});

test("what is replaced comes back also when the new one is gone", () => {
  using folder = new ConfigFolder({ a: "old" });
  {
    using staging = StagingFolder.make(folder.path);
    staging.write("a", bytes("new"));
    const failing = () => {
      rmSync(folder.file("a"));
      throw new Error("it fails");
    };
    expect(() => staging.publish(["a"], ["a"], failing)).toThrow("it fails");
  }
  expect(readdirSync(folder.path)).toEqual(["a"]);
  expect(readFileSync(folder.file("a"), "utf8")).toBe("old");
});

test("what is replaced is kept where it cannot come back", () => {
  using folder = new ConfigFolder({ key: "old key" });
  let kept: string;
  {
    using staging = StagingFolder.make(folder.path);
    kept = `${staging.path}/old/key`;
    const failing = () => {
      folder.write("key", "somebody's");
      throw new Error("it fails");
    };
    expect(() => staging.publish([], ["key"], failing)).toThrow("it fails");
  }
  expect(readFileSync(folder.file("key"), "utf8")).toBe("somebody's");
  expect(readFileSync(kept, "utf8")).toBe("old key");
});

test("what a killed process left goes with the next run, but not what it was replacing", () => {
  using folder = new ConfigFolder();
  mkdirSync(folder.file(".ubiblk-init.000000000000"));
  writeFileSync(folder.file(".ubiblk-init.000000000000/disk.raw"), "half");
  mkdirSync(folder.file(".ubiblk-init.111111111111/old"), { recursive: true });
  using running = StagingFolder.make(folder.path);
  using _next = StagingFolder.make(folder.path);
  expect(existsSync(folder.file(".ubiblk-init.000000000000"))).toBe(false);
  expect(existsSync(folder.file(".ubiblk-init.111111111111/old"))).toBe(true);
  expect(existsSync(running.path)).toBe(true);
});
