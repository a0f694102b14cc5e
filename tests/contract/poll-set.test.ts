/** Waits for descriptors with the times that configurations allow. */
import { expect, test } from "bun:test";
import { closeSync, constants, mkdtempSync, openSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { outputOf } from "../../scripts/command.ts";
import { PollSet } from "../../src/ffi/socket.ts";

test.each([2 ** 32, 2 ** 32 + 5, Number.MAX_SAFE_INTEGER])(
  "a wait of up to %d ms lasts until something comes",
  async (timeoutMs) => {
    const folder = mkdtempSync(join(tmpdir(), "ubiblk-poll-"));
    const path = join(folder, "fifo");
    await outputOf(["mkfifo", path]);
    const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    using poll = new PollSet(1);
    poll.watch(0, fd);
    const beginMs = performance.now();
    const writer = Bun.spawn(["sh", "-c", `sleep 0.2; echo > ${path}`]);
    expect(poll.wait(timeoutMs)).toBe(1);
    expect(performance.now() - beginMs).toBeGreaterThan(150);
    await writer.exited;
    closeSync(fd);
    rmSync(folder, { recursive: true });
  },
);
