/** Disks for `ubiblk doctor`, and what it says about them. */
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type CommandResult, runCommand } from "../../scripts/command.ts";
import { EXECUTABLE } from "./backend.ts";

const MIB = 2 ** 20;

export interface Check {
  readonly subject: string;
  readonly check: string;
  readonly verdict: string;
  readonly found: string;
  readonly advice: string | null;
}

/** A folder with an encrypted disk that nothing is wrong with, until a test sees to that. */
export class DoctorPlace implements Disposable {
  readonly folder = mkdtempSync(join(tmpdir(), "ubiblk-doctor-"));
  readonly config = this.file("disk.toml");

  constructor() {
    this.write("key", new Uint8Array(64).fill(5));
    this.write("id", "a name");
    this.write("disk.raw", "");
    truncateSync(this.file("disk.raw"), 4 * MIB);
    this.configure();
  }

  file(name: string): string {
    return join(this.folder, name);
  }

  write(name: string, content: string | Uint8Array): void {
    writeFileSync(this.file(name), content, { mode: 0o600 });
  }

  /** @param device further keys of `[device]` @param sections further ones */
  configure(device = "", sections = "", key = "key"): void {
    this.write(
      "disk.toml",
      `[device]\ndata_path = "disk.raw"\nvhost_socket = "vhost.sock"\nrpc_socket = "rpc.sock"\n${device}\n` +
        `[encryption]\nxts_key.ref = "key"\n[secrets.key]\nsource.file = "${key}"\n${sections}\n` +
        "[danger_zone]\nenabled = true\nallow_secret_over_regular_file = true\nallow_unencrypted_connection = true\n",
    );
  }

  examine(...flags: readonly string[]): Promise<CommandResult> {
    const command = [EXECUTABLE, "doctor", "-f", this.config, "--json", ...flags];
    return runCommand(command, { timeoutMs: 60_000 });
  }

  [Symbol.dispose](): void {
    rmSync(this.folder, { recursive: true, force: true });
  }
}

export function checksOf({ stdout }: CommandResult): readonly Check[] {
  return JSON.parse(stdout).checks;
}

export function checkOf(result: CommandResult, subject: string, check: string): Check | undefined {
  return checksOf(result).find((each) => each.subject === subject && each.check === check);
}

/** What a machine or a container of the tests may lack is no concern of theirs. */
export function faultsOf(result: CommandResult): readonly Check[] {
  return checksOf(result).filter(({ verdict }) => verdict === "fail");
}

/** Puts `to` in the place of `from` in the configuration. */
export function retarget(place: DoctorPlace, from: string, to: string): void {
  place.write("disk.toml", readFileSync(place.config, "utf8").replace(from, to));
}

/** Gives the disk metadata and a stripe source. */
export function source(place: DoctorPlace, section: string): void {
  place.configure('metadata_path = "meta"', `[stripe_source]\n${section}`);
}

export function s3At(endpoint: string): string {
  return (
    `type = "archive"\nstorage = "s3"\nbucket = "bucket"\nendpoint = "${endpoint}"\n` +
    'access_key_id.ref = "id"\nsecret_access_key.ref = "id"\n[secrets.id]\nsource.file = "id"'
  );
}
