/** systemd itself, as the first process of namespaces: scripts run in it as root and touch nothing of this machine. */
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { isInstalled } from "./requires.ts";
import { until } from "./until.ts";

const ROOT = resolve(import.meta.dir, "..", "..");
const SCRIPT = join(import.meta.dir, "systemd-world.sh");

/** A reason why that cannot be had here, or undefined. */
export function missingSystemd(): string | undefined {
  if (process.getuid?.() !== 0) {
    return "systemd as a first process needs root";
  }
  if (!existsSync("/lib/systemd/systemd") || !isInstalled("systemctl")) {
    return "systemd is not installed";
  }
  using place = new Place();
  const { exitCode, stderr, pid } = Bun.spawnSync([SCRIPT, place.path]);
  removeGroups(groupOf(pid));
  return exitCode === 0 ? undefined : `systemd has no world of its own: ${stderr}`.trim();
}

/** Runs a script of bash in the repository, to its end or its first failure: its exit code, and all that it printed. */
export async function runInSystemd(
  script: string,
): Promise<{ readonly exitCode: number; readonly output: string }> {
  using place = new Place();
  writeFileSync(place.file("script"), `${START_JOURNAL}\n${script}`);
  const world = Bun.spawn([SCRIPT, place.path, ROOT], { stdio: ["ignore", "ignore", "inherit"] });
  try {
    const isOver = () => existsSync(place.file("code")) || world.exitCode !== null;
    await until("the script ends", isOver, SCRIPT_MS);
    const output = readFileSync(place.file("output"), "utf8");
    return { exitCode: Number(readFileSync(place.file("code"), "utf8")), output };
  } finally {
    world.kill("SIGKILL"); // and with it the first process, and all others of its namespace
    await world.exited;
    await until("all processes of it are gone", () => removeGroups(groupOf(world.pid)));
  }
}

// --- internal ---

const SCRIPT_MS = 100_000;
const START_JOURNAL = "systemctl start systemd-journald.socket systemd-journald.service";

/** Of the processes of a world that was started as `pid`. */
function groupOf(pid: number): string {
  const folders = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
  const group = folders.map((folder) => join(folder, `ubiblk-test-${pid}`)).find(existsSync);
  return group ?? "";
}

/** Whether the group and all in it are gone: a group in which something runs stays. */
function removeGroups(path: string): boolean {
  if (path === "") {
    return true;
  }
  const inner = readdirSync(path, { withFileTypes: true }).filter((entry) => entry.isDirectory());
  if (!inner.every(({ name }) => removeGroups(join(path, name)))) {
    return false;
  }
  try {
    rmdirSync(path);
    return true;
  } catch {
    return false; // busy
  }
}

class Place implements Disposable {
  readonly path = mkdtempSync(join(tmpdir(), "ubiblk-systemd-"));

  file(name: string): string {
    return join(this.path, name);
  }

  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true, force: true });
  }
}
