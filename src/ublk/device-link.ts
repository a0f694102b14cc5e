/**
 * The symlink that leads to the block device: it appears when the device works, replaces nothing but symlinks,
 * and goes before the device does.
 */
import { lstatSync, mkdirSync, readlinkSync, renameSync, symlinkSync, unlinkSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { errorText, UbiError } from "../errors.ts";
import { log } from "../log.ts";

export class DeviceLink implements Disposable {
  readonly path: string;
  #target: string | undefined;

  /** @throws UbiError E_UBLK_LINK when something that is no symlink is in the place */
  constructor(path: string) {
    this.path = resolve(path);
    const kind = kindAt(this.path);
    if (kind === "other") {
      throw new UbiError(
        "E_UBLK_LINK",
        `${this.path} exists and is no symlink: it is not replaced; remove it or choose another path`,
      );
    }
  }

  /** Lets the link lead to `target`. A failure is only warned of: the device itself works. */
  make(target: string): void {
    const newPath = `${this.path}.new-${process.pid}`;
    try {
      mkdirSync(dirname(this.path), { recursive: true });
      if (kindAt(this.path) === "other") {
        throw new Error("something that is no symlink is in its place");
      }
      symlinkSync(target, newPath);
      renameSync(newPath, this.path);
      this.#target = target;
    } catch (error) {
      removeQuietly(newPath);
      log.warn("cannot make the symlink", { path: this.path, cause: errorText(error) });
    }
  }

  /** Removes the link if it is still ours. */
  [Symbol.dispose](): void {
    const target = this.#target;
    this.#target = undefined;
    if (target === undefined) {
      return;
    }
    try {
      if (kindAt(this.path) === "symlink" && readlinkSync(this.path) === target) {
        unlinkSync(this.path);
      }
    } catch (error) {
      log.warn("cannot remove the symlink", { path: this.path, cause: errorText(error) });
    }
  }
}

// --- internal ---

function kindAt(path: string): "none" | "symlink" | "other" {
  try {
    return lstatSync(path).isSymbolicLink() ? "symlink" : "other";
  } catch {
    return "none"; // whatever else is wrong shows when the link is made
  }
}

function removeQuietly(path: string): void {
  try {
    unlinkSync(path);
  } catch {
    // It was not made.
  }
}
