/**
 * A copy of source modules in which every store to shared memory is followed by a call: tests of crash safety look at
 * memory as it is after each of them. The code is the product's own, but for that call.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join, resolve } from "node:path";

const STORES = [
  /^ *this\.#\w+\[.*\] = .*;$/, // of a typed array
  /^ *Atomics\.store\(.*\);$/,
  /^ *this\.#view\.set\w+\(.*\);$/, // of a DataView
  /^ *bytes\.fill\(.*\);$/,
];

export interface LoggedModules extends Disposable {
  readonly modules: readonly unknown[];
  /** Stores found in the sources. */
  readonly storeCount: number;
}

/**
 * @param paths of modules that are copied; imports between them lead to the copies
 * @param afterStore is called after each store
 */
export async function importLogged(
  paths: readonly string[],
  afterStore: () => void,
): Promise<LoggedModules> {
  const folder = mkdtempSync(join(tmpdir(), "ubiblk-logged-"));
  const hook = `__afterStore${basename(folder).replaceAll(/\W/g, "")}`;
  Reflect.set(globalThis, hook, afterStore);
  let storeCount = 0;
  for (const path of paths) {
    const lines = readFileSync(path, "utf8").split("\n");
    const logged = lines.map((line) => {
      const isStore = STORES.some((store) => store.test(line));
      storeCount += isStore ? 1 : 0;
      return isStore ? `${line} globalThis.${hook}();` : line;
    });
    const text = logged.join("\n").replaceAll(/ from "(\.[^"]+)"/g, (_, name: string) => {
      const target = resolve(dirname(path), name);
      return ` from "${paths.includes(target) ? `./${basename(target)}` : target}"`;
    });
    writeFileSync(join(folder, basename(path)), text);
  }
  const modules = await Promise.all(
    paths.map((path): Promise<unknown> => import(join(folder, basename(path)))),
  );
  return {
    modules,
    storeCount,
    [Symbol.dispose]: () => {
      Reflect.deleteProperty(globalThis, hook);
      rmSync(folder, { recursive: true });
    },
  };
}
