import { expect, spyOn, test } from "bun:test";
import { ConfigFolder } from "../../tests/support/config-folder.ts";
import { log } from "../log.ts";
import { ReadTimeoutError, readBounded, systemErrorCode } from "./bounded-read.ts";

const OPTIONS = { bytesMax: 16, timeoutMs: 20_000, what: 'secret "kek"' };
const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

test("a regular file is read whole", async () => {
  using folder = new ConfigFolder({ a: "sixteen bytes ok" });
  expect(text(await readBounded(folder.file("a"), OPTIONS))).toBe("sixteen bytes ok");
});

test("of a file that is too large one byte more than allowed is read", async () => {
  using folder = new ConfigFolder({ a: "x".repeat(100) });
  expect(await readBounded(folder.file("a"), OPTIONS)).toHaveLength(17);
});

test("a device that is empty is not waited for", async () => {
  expect(await readBounded("/dev/null", OPTIONS)).toHaveLength(0);
});

test("a device without end is read up to the limit", async () => {
  expect(await readBounded("/dev/zero", OPTIONS)).toHaveLength(17);
});

test("a pipe that is written to in pieces is read to its end", async () => {
  using folder = new ConfigFolder();
  Bun.spawnSync(["mkfifo", folder.file("p")]);
  const script = 'sleep 0.05; exec 3>"$0"; printf ab >&3; sleep 0.05; printf cd >&3';
  await using _writer = Bun.spawn(["sh", "-c", script, folder.file("p")]);
  expect(text(await readBounded(folder.file("p"), OPTIONS))).toBe("abcd");
});

test("what a pipe is awaited for is logged with its path", async () => {
  using folder = new ConfigFolder();
  using info = spyOn(log, "info").mockImplementation(() => undefined);
  Bun.spawnSync(["mkfifo", folder.file("p")]);
  const reading = readBounded(folder.file("p"), { ...OPTIONS, timeoutMs: 30 });
  await expect(reading).rejects.toThrow(ReadTimeoutError);
  expect(info).toHaveBeenCalledTimes(1);
  expect(info).toHaveBeenCalledWith('waiting for secret "kek"', { path: folder.file("p") });
});

test("an inspection that refuses comes before the first byte is taken", async () => {
  using folder = new ConfigFolder({ a: "x" });
  const inspect = () => {
    throw new RangeError("refused");
  };
  const reading = readBounded(folder.file("a"), { ...OPTIONS, inspect });
  await expect(reading).rejects.toThrow("refused");
});

test("the system's error of an absent file passes through", async () => {
  using folder = new ConfigFolder();
  const error = await readBounded(folder.file("none"), OPTIONS).catch((caught: unknown) => caught);
  expect(systemErrorCode(error)).toBe("ENOENT");
});
