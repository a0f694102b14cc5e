/**
 * Run as a process of its own by the cipher tests: chooses a provider as the product does, enciphers one
 * known sector and prints both as JSON. With `--harden` the process is made undumpable first.
 */
import { XtsCipher } from "../../src/disk/cipher.ts";
import { Arena } from "../../src/ffi/arena.ts";
import { hardenProcess } from "../../src/ffi/process.ts";

if (process.argv.includes("--harden") && hardenProcess() !== 0) {
  throw new Error("the process cannot be hardened");
}
using arena = new Arena(512);
const sector = arena.bytes(512);
sector.view.forEach((_, i) => {
  sector.view[i] = 7 * i + 3;
});
using cipher = XtsCipher.create(Uint8Array.from({ length: 64 }, (_, i) => i));
const result = cipher.encrypt(2, 1, sector.address, sector.address);
const sha256 = new Bun.CryptoHasher("sha256").update(sector.view).digest("hex");
console.log(JSON.stringify({ provider: cipher.provider, result, sha256 }));
