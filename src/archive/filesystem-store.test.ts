import { afterEach, beforeEach, expect, test } from "bun:test";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { listed, reasonOf } from "../../tests/support/store-contract.ts";
import { FilesystemStore, INCOMPLETE_FOLDER } from "./filesystem-store.ts";
import type { StoreRole } from "./object-store.ts";

const BYTES = new Uint8Array([1, 2, 3]);

let place: string;
let path: string;

beforeEach(() => {
  place = mkdtempSync(join(tmpdir(), "ubiblk-store-"));
  path = join(place, "deep", "archive");
});

afterEach(() => rmSync(place, { recursive: true, force: true }));

const open = (role: StoreRole) => FilesystemStore.open({ kind: "filesystem", path, role });
const modeOf = (name: string) => statSync(join(path, name)).mode & 0o777;

test("a reader of a folder that is missing fails clearly and makes nothing", () => {
  expect(() => open("read")).toThrow(`cannot open the archive folder ${path}: ENOENT`);
  expect(existsSync(join(place, "deep"))).toBe(false);
});

test("a folder that is a file is refused", () => {
  mkdirSync(join(place, "deep"));
  writeFileSync(path, "");
  expect(() => open("read")).toThrow("cannot open the archive folder");
  expect(() => open("write")).toThrow(
    `cannot open the archive folder ${path}: it is no folder; mend its path`,
  );
});

test("what is written can be read by its owner only", async () => {
  await using store = open("write");
  await store.put("data/00", BYTES);
  expect([modeOf("."), modeOf("data"), modeOf("data/00")]).toEqual([0o700, 0o700, 0o600]);
});

test("a reader reads what a writer wrote", async () => {
  await using writer = open("write");
  await writer.put("data/00", BYTES);
  await using reader = open("read");
  expect(await reader.get("data/00", { lengthMax: 3 })).toEqual(BYTES);
  expect(await reasonOf(reader.put("data/01", BYTES))).toHaveProperty("name", "AssertionError");
  expect(await reasonOf(reader.remove("data/00"))).toHaveProperty("name", "AssertionError");
});

test("after a put nothing unfinished is left", async () => {
  await using store = open("write");
  await store.put("data/00", BYTES);
  expect(readdirSync(join(path, INCOMPLETE_FOLDER))).toEqual([]);
});

test("a put that cannot be finished leaves nothing, and the next one works", async () => {
  await using store = open("write");
  mkdirSync(join(path, "data", "00"), { recursive: true });
  const message = String(await reasonOf(store.put("data/00", BYTES)));
  const why = "a folder is in its place; remove that folder";
  expect(message).toEndWith(`cannot write object data/00 in ${path}: ${why}`);
  expect(readdirSync(join(path, INCOMPLETE_FOLDER))).toEqual([]);
  await store.put("data/01", BYTES);
  expect(await store.sizeOf("data/01")).toBe(3);
});

test("a folder that somebody removed is made again by the next put but one", async () => {
  await using store = open("write");
  await store.put("data/00", BYTES);
  rmSync(join(path, "data"), { recursive: true });
  await reasonOf(store.put("data/01", BYTES));
  await store.put("data/01", BYTES);
  expect(await store.sizeOf("data/01")).toBe(3);
});

test("what a killed run left is no object, but can be listed and removed by its prefix", async () => {
  await using store = open("write");
  await store.put("data/00", BYTES);
  const name = "0123456789abcdef-7";
  writeFileSync(join(path, INCOMPLETE_FOLDER, name), "half");
  writeFileSync(join(path, INCOMPLETE_FOLDER, "foreign"), "");
  mkdirSync(join(path, INCOMPLETE_FOLDER, "folder"));
  writeFileSync(join(path, INCOMPLETE_FOLDER, "folder", name), "");
  symlinkSync("foreign", join(path, INCOMPLETE_FOLDER, "0123456789abcdef-8"));
  expect(await listed(store, "")).toEqual([["data/00", 3]]);
  const left = `${INCOMPLETE_FOLDER}/${name}`;
  expect(await listed(store, `${INCOMPLETE_FOLDER}/`)).toEqual([[left, 4]]);
  await store.remove(left);
  expect(await listed(store, `${INCOMPLETE_FOLDER}/`)).toEqual([]);
});

test("a list leaves out what is no object: links, pipes, hidden and foreign names", async () => {
  await using store = open("write");
  await store.put("data/00", BYTES);
  symlinkSync("00", join(path, "data", "link"));
  symlinkSync(place, join(path, "up"));
  Bun.spawnSync(["mkfifo", join(path, "data", "pipe")]);
  for (const name of [".hidden", "a b", "\u00e9"]) {
    writeFileSync(join(path, "data", name), "");
  }
  expect(await listed(store, "")).toEqual([["data/00", 3]]);
});

test("a list of more entries than one portion of the kernel's is whole", async () => {
  await using store = open("write");
  await store.put("data/first", BYTES);
  const names = Array.from({ length: 5000 }, (_, i) => `${i}`.padStart(64, "0"));
  for (const name of names) {
    writeFileSync(join(path, "data", name), "");
  }
  const keys = (await listed(store, "data/0")).map(([key]) => key);
  expect(keys).toEqual(names.map((name) => `data/${name}`));
});

test("a pipe or folder in the place of an object is refused and holds nobody up", async () => {
  await using store = open("write");
  Bun.spawnSync(["mkfifo", join(path, "pipe")]);
  mkdirSync(join(path, "folder"));
  for (const key of ["pipe", "folder"]) {
    const message = String(await reasonOf(store.get(key, { lengthMax: 10 })));
    expect(message).toContain(`object ${key} in ${path} is no regular file`);
    expect(await store.sizeOf(key)).toBeUndefined();
  }
});

test("the whole file system is brought to disk", async () => {
  await using store = open("write");
  await store.put("data/00", BYTES);
  await store.sync();
  expect(await store.get("data/00", { lengthMax: 3 })).toEqual(BYTES);
});

test("a folder is locked once, as long as its store is open; readers and writers of objects do not care", async () => {
  await using second = open("write");
  {
    await using first = open("write");
    expect(first.lock()).toBe("locked");
    expect(second.lock()).toBe("busy");
    await second.put("data/00", BYTES);
  }
  expect(second.lock()).toBe("locked");
});

test("a writer refuses a data folder that is a link: its objects would not be listed", () => {
  mkdirSync(path, { recursive: true });
  mkdirSync(join(place, "elsewhere"));
  symlinkSync(join(place, "elsewhere"), join(path, "data"));
  expect(() => open("write")).toThrow("give the archive one folder for all of it");
  expect(() => open("read")).not.toThrow();
});

test("the folder of an archive may be reached through links", async () => {
  mkdirSync(join(place, "real"));
  symlinkSync("real", join(place, "deep"));
  await using store = open("write");
  await store.put("data/00", BYTES);
  expect(readdirSync(join(place, "real", "archive", "data"))).toEqual(["00"]);
});

test("links in the place of the folders of an archive lead nowhere: what they point to stays as it is", async () => {
  const victim = join(place, "victim");
  mkdirSync(victim);
  const name = "0123456789abcdef-7";
  writeFileSync(join(victim, name), "precious");
  writeFileSync(join(victim, "00"), "precious");
  await using store = open("write");
  for (const folder of ["data", INCOMPLETE_FOLDER]) {
    symlinkSync(victim, join(path, folder));
  }
  const attempts = [
    listed(store, `${INCOMPLETE_FOLDER}/`),
    listed(store, "data/"),
    store.remove(`${INCOMPLETE_FOLDER}/${name}`),
    store.remove("data/00"),
    store.put("data/00", BYTES),
    store.putNew("data/01", BYTES),
    store.put("metadata.json", BYTES),
    store.get("data/00", { lengthMax: 10 }),
    store.sizeOf("data/00"),
  ];
  for (const attempt of attempts) {
    expect(String(await reasonOf(attempt))).toContain("ELOOP (a symbolic link");
  }
  expect(readdirSync(victim).sort()).toEqual(["00", name]);
  expect(readFileSync(join(victim, "00"), "utf8")).toBe("precious");
});

test("a link in the place of an object is not read, and replaced itself by a put", async () => {
  await using store = open("write");
  await store.put("data/00", BYTES);
  const victim = join(place, "victim");
  writeFileSync(victim, "precious");
  symlinkSync(victim, join(path, "data", "01"));
  symlinkSync("data/00", join(path, "metadata.json"));
  for (const key of ["data/01", "metadata.json"]) {
    expect(await store.sizeOf(key)).toBeUndefined();
    const message = String(await reasonOf(store.get(key, { lengthMax: 10 })));
    expect(message).toContain(`cannot read object ${key} in ${path}: ELOOP`);
  }
  await store.put("data/01", BYTES);
  await store.remove("metadata.json");
  expect(await listed(store, "")).toEqual([
    ["data/00", 3],
    ["data/01", 3],
  ]);
  expect(readFileSync(victim, "utf8")).toBe("precious");
});
