/**
 * A guest that is worked on while it runs: started in the background, asked by QMP, its output looked at as it comes.
 * Its script does not end; the machine ends with this object.
 */
import {
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import { guestInitramfs } from "./guest.ts";
import { BOOT_MS, BOOTS, BUILD_FOLDER, emulatorCommand, newestEmulator } from "./guest-boot.ts";
import { guestKernel } from "./guest-kernel.ts";
import { until } from "./until.ts";

const ANSWER_MS = 60_000;
const BEGUN = /^guest-begin$/m;

export interface LiveGuestOptions {
  readonly socketPath: string;
  readonly script: string;
  readonly memoryMiB: number;
  /** It does not boot: another QEMU hands it over. */
  readonly isMoved?: boolean;
  /** Further arguments of QEMU. */
  readonly more?: readonly string[];
}

export class LiveGuest implements AsyncDisposable {
  readonly folder = mkdtempSync(join(BUILD_FOLDER, "live-guest-"));
  readonly #child: Bun.Subprocess;
  #qmp: Socket | undefined;
  #lines: string[] = [];
  #rest = "";

  /** Its script has begun, unless it comes from elsewhere; a boot that does not get there is tried again (guest-boot.ts). */
  static async start(options: LiveGuestOptions): Promise<LiveGuest> {
    const kernel = await guestKernel();
    const initramfs = await guestInitramfs(options.script);
    for (let boot = 1; ; boot++) {
      const guest = new LiveGuest(options, kernel.imagePath, initramfs);
      try {
        await guest.#connect();
        if (options.isMoved !== true) {
          await guest.untilPrinted(BEGUN, BOOT_MS);
        }
        return guest;
      } catch (error) {
        await guest[Symbol.asyncDispose]();
        if (boot === BOOTS) {
          throw error;
        }
        console.log("guest: kernel or emulator broke before the script began; booting once more");
      }
    }
  }

  private constructor(options: LiveGuestOptions, kernelPath: string, initramfs: Uint8Array[]) {
    writeFileSync(this.file("initramfs"), Buffer.concat(initramfs));
    const command = emulatorCommand(
      {
        emulator: newestEmulator(),
        kernelPath,
        initramfs,
        cpuCount: 2,
        memoryMiB: options.memoryMiB,
        devices: [
          ...["-chardev", `socket,id=disk,path=${options.socketPath}`],
          ...["-device", "vhost-user-blk-pci,chardev=disk,num-queues=1"],
          ...["-qmp", `unix:${this.file("qmp")},server=on,wait=off`],
          ...(options.more ?? []),
        ],
        // On a busy machine the emulated timer is late for the kernel's check. A kernel that clears each page before a
        // disk fills it would hide from QEMU that the disk's backend did not mark it.
        words: "no_timer_check init_on_alloc=0",
        timeoutMs: 0,
      },
      this.folder,
    );
    const log = openSync(this.file("log"), "w");
    this.#child = Bun.spawn(command, { stdio: ["ignore", log, log] });
    closeSync(log);
  }

  file(name: string): string {
    return join(this.folder, name);
  }

  /** What the script printed so far. */
  output(): string {
    return this.#text("output").replaceAll("\r", "");
  }

  /** What kernel, firmware and QEMU said so far. */
  console(): string {
    return `${this.#text("console")}${this.#text("log")}`;
  }

  /** A command of QMP: its return value. @throws Error when it is refused */
  async ask(execute: string, members: Readonly<Record<string, unknown>> = {}): Promise<unknown> {
    this.#lines = [];
    this.#qmp?.write(`${JSON.stringify({ execute, arguments: members })}\n`);
    let answer: { return?: unknown; error?: { desc: string } } = {};
    await until(
      `QEMU answers ${execute}`,
      () => {
        const line = this.#lines.find((each) => /^\{"(return|error)"/.test(each));
        answer = line === undefined ? answer : JSON.parse(line);
        this.#expectAlive();
        return line !== undefined;
      },
      ANSWER_MS,
    );
    if (answer.error !== undefined) {
      throw new Error(`${execute}: ${answer.error.desc}`);
    }
    return answer.return;
  }

  /** Waits until the output matches. @throws Error with the console when that takes longer than `waitMs` */
  async untilPrinted(pattern: RegExp, waitMs: number): Promise<void> {
    const isThere = () => {
      this.#expectAlive();
      return pattern.test(this.output());
    };
    await until(`the guest prints ${pattern}`, isThere, waitMs).catch((error) => {
      throw new Error(`${error}\n${this.console()}\n${this.output()}`);
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#qmp?.destroy();
    this.#child.kill("SIGKILL");
    await this.#child.exited;
    rmSync(this.folder, { recursive: true, force: true });
  }

  // --- internal ---

  async #connect(): Promise<void> {
    await until("QEMU listens", async () => {
      this.#expectAlive();
      this.#qmp = await connected(this.file("qmp"));
      return this.#qmp !== undefined;
    });
    this.#qmp?.on("data", (data) => {
      const lines = `${this.#rest}${data.toString()}`.split("\n");
      this.#rest = lines.pop() ?? "";
      this.#lines.push(...lines);
    });
    await this.ask("qmp_capabilities");
  }

  #expectAlive(): void {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) {
      throw new Error(`QEMU has ended:\n${this.console()}\n${this.output()}`);
    }
  }

  #text(name: string): string {
    return existsSync(this.file(name)) ? readFileSync(this.file(name), "utf8") : "";
  }
}

/** Undefined while nobody listens: the file of a socket is there a moment before. */
function connected(path: string): Promise<Socket | undefined> {
  const socket = connect(path);
  return new Promise((resolve) => {
    socket.once("connect", () => resolve(socket));
    socket.once("error", () => resolve(undefined));
  });
}
