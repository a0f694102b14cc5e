/** The folder store where the kernel is told to refuse syncfs(2), as some containers do. */
import { expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { runCommand } from "../../scripts/command.ts";

const SYS_SYNCFS = process.arch === "x64" ? "306" : "267";
const ROOT = resolve(import.meta.dir, "..", "..");

test("without syncfs the store is synced file by file, a damaged folder is an error", async () => {
  const folder = mkdtempSync(join(tmpdir(), "ubiblk-sync-"));
  try {
    const refuse = join(folder, "refuse-syscall");
    const source = join(ROOT, "tests", "support", "refuse-syscall.c");
    expect((await runCommand(["gcc", "-O2", "-o", refuse, source])).exitCode).toBe(0);
    const script = `
      import { rmSync } from "node:fs";
      import { FilesystemStore } from "${ROOT}/src/archive/filesystem-store.ts";
      const path = ${JSON.stringify(join(folder, "archive"))};
      const store = FilesystemStore.open({ kind: "filesystem", path, role: "write" });
      await store.put("data/00", new Uint8Array(10));
      await store.put("metadata.json", new Uint8Array(10));
      await store.sync();
      rmSync(path, { recursive: true });
      console.log(await store.sync().then(() => "synced", (error) => error.message));
    `;
    const result = await runCommand([refuse, SYS_SYNCFS, process.execPath, "-e", script]);
    expect(result.stderr).toBe("");
    expect(result.stdout).toContain(`cannot list folder ${join(folder, "archive")}: ENOENT`);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
