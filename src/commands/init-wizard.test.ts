import { expect, test } from "bun:test";
import { ConfigFolder } from "../../tests/support/config-folder.ts";
import { INIT_FLAGS, type InitFlags } from "./init-flags.ts";
import { askForFlags, askYesNo } from "./init-wizard.ts";

const NONE = Object.fromEntries(
  Object.entries(INIT_FLAGS).map(([name, { type }]) => [
    name,
    type === "boolean" ? false : undefined,
  ]),
) as InitFlags; // every flag is there with a value of its type

/** Gives the answers in turn and keeps the questions. */
function scripted(...answers: readonly string[]) {
  const rest = [...answers];
  const questions: string[] = [];
  const said: string[] = [];
  const terminal = {
    say: (text: string) => {
      said.push(text);
    },
    ask: async (question: string) => {
      questions.push(question);
      const answer = rest.shift();
      if (answer === undefined) {
        throw new Error(`nobody answers ${question}`);
      }
      return answer;
    },
  };
  return { terminal, questions, said, rest };
}

test("Enter everywhere makes an empty disk of 1G with a key in a file", async () => {
  const script = scripted("", "", "", "", "");
  const flags = await askForFlags(NONE, script.terminal);
  expect(flags).toEqual({ ...NONE, dir: ".", size: "1G", "num-queues": "1" });
  expect(script.questions).toEqual([
    "Folder to make it in [.]: ",
    "Size [1G]: ",
    "Number [1]: ",
    "Number [1]: ",
    "Queues [1]: ",
  ]);
});

test("what was given is not asked for, and stays", async () => {
  const given = {
    ...NONE,
    dir: "/vm",
    size: "2G",
    remote: "a:1",
    kek: true,
    "num-queues": "4",
    "queue-size": "256",
    "track-written": true,
  };
  const script = scripted();
  expect(await askForFlags(given, script.terminal)).toEqual(given);
});

test("a wrong answer is asked for again, with the reason", async () => {
  const script = scripted("", "1000", "big", "64M", "9", "1", "x", "1", "64", "2");
  expect(await askForFlags(NONE, script.terminal)).toMatchObject({
    size: "64M",
    "num-queues": "2",
  });
  expect(script.rest).toEqual([]);
  const said = script.said.join("");
  expect(said).toContain("a multiple of 512 bytes is expected");
  expect(said).toContain('"big" is no size');
  expect(said).toContain("a number from 1 to 5 is expected");
  expect(said).toContain("a number from 1 to 63 is expected");
});

test("an image has to be there", async () => {
  using folder = new ConfigFolder({ image: "x" });
  const script = scripted("", "", "2", "/nonexistent", folder.path, folder.file("image"), "", "");
  expect((await askForFlags(NONE, script.terminal)).base).toBe(folder.file("image"));
  expect(script.said.join("")).toContain("is a folder");
});

test("an archive in a folder, with its KEK", async () => {
  using folder = new ConfigFolder({ kek: "x" });
  const script = scripted("", "", "3", folder.path, folder.file("kek"), "2", "");
  expect(await askForFlags(NONE, script.terminal)).toMatchObject({
    archive: folder.path,
    "archive-kek": folder.file("kek"),
    kek: true,
  });
});

test("an archive in a bucket, with credentials of the machine or in files", async () => {
  using folder = new ConfigFolder({ id: "x", key: "y" });
  const machine = scripted("", "", "4", "b/p", "", "", "", "2", "4", "");
  expect(await askForFlags(NONE, machine.terminal)).toMatchObject({
    s3: "b/p",
    "s3-region": "us-east-1",
    "s3-endpoint": undefined,
    "s3-credentials": "instance",
    unencrypted: true,
  });
  const url = "https://s3.example";
  const files = [folder.file("id"), folder.file("key")];
  const script = scripted("", "", "4", "b", "eu", url, "", "6", ...files, "", "");
  expect(await askForFlags(NONE, script.terminal)).toMatchObject({
    "s3-endpoint": url,
    "s3-access-key-id": folder.file("id"),
    "s3-secret-access-key": folder.file("key"),
  });
});

test("a stripe server with a key; without one only when that was meant", async () => {
  using folder = new ConfigFolder({ psk: "x" });
  const safe = scripted("", "", "5", "h:1", folder.file("psk"), "host-a", "", "");
  expect(await askForFlags(NONE, safe.terminal)).toMatchObject({
    remote: "h:1",
    psk: folder.file("psk"),
    "psk-identity": "host-a",
    "unencrypted-connection": false,
  });
  const plain = scripted("", "", "5", "h:1", "", "y", "", "");
  expect((await askForFlags(NONE, plain.terminal))["unencrypted-connection"]).toBe(true);
});

test("yes or no: the default, the words, and nothing else", async () => {
  expect(await askYesNo(scripted("").terminal, "?", true)).toBe(true);
  expect(await askYesNo(scripted("").terminal, "?", false)).toBe(false);
  expect(await askYesNo(scripted("maybe", "YES").terminal, "?", false)).toBe(true);
  expect(await askYesNo(scripted("n").terminal, "?", true)).toBe(false);
});
