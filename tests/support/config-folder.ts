/** Config files for tests: a folder of files with mode 0600 that goes away with its test. */
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { UbiError, UbiErrors } from "../../src/errors.ts";

// What these tests provoke would fill the terminal with warnings.
process.env.UBIBLK_LOG ??= "error";

export class ConfigFolder {
  readonly path = mkdtempSync(join(tmpdir(), "ubiblk-config-"));

  /** Each key is a file name, each value its content. */
  constructor(files: Readonly<Record<string, string | Uint8Array>> = {}) {
    for (const [name, content] of Object.entries(files)) {
      this.write(name, content);
    }
  }

  write(name: string, content: string | Uint8Array, mode = 0o600): string {
    const path = this.file(name);
    writeFileSync(path, content);
    chmodSync(path, mode);
    return path;
  }

  file(name: string): string {
    return join(this.path, name);
  }

  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true, force: true });
  }
}

/** The errors that `action` rejects with, one `CODE message` a line; empty when it succeeds. */
export async function errorsOf(action: Promise<unknown>): Promise<string> {
  try {
    await action;
    return "";
  } catch (error) {
    if (error instanceof UbiErrors) {
      return error.errors.map(textOf).join("\n");
    }
    if (error instanceof UbiError) {
      return textOf(error);
    }
    throw error;
  }
}

function textOf(error: UbiError): string {
  return `${error.code} ${error.message}`;
}
