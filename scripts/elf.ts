/** What an executable or library asks of the system: its NEEDED entries (read by binutils' readelf). */
import { outputOf } from "./command.ts";

/** The libraries that glibc itself consists of; a machine that runs the executable has them. */
const GLIBC_LIBRARIES: ReadonlySet<string> = new Set([
  "libc.so.6",
  "libm.so.6",
  "libdl.so.2",
  "libpthread.so.0",
  "librt.so.1",
  "ld-linux-x86-64.so.2",
  "ld-linux-aarch64.so.1",
]);

export async function neededLibraries(path: string): Promise<readonly string[]> {
  const dynamicSection = await outputOf(["readelf", "--wide", "--dynamic", path]);
  return [...dynamicSection.matchAll(/\(NEEDED\).*\[(.+)\]/g)].map((match) => match[1] ?? "");
}

/** NEEDED entries that are not glibc's own: empty for what we ship. */
export async function foreignLibraries(path: string): Promise<readonly string[]> {
  return (await neededLibraries(path)).filter((name) => !GLIBC_LIBRARIES.has(name));
}
