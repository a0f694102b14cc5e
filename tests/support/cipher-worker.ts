/** A thread of the cipher tests: enciphers with keys that the main thread expanded, as queue workers do. */
import { adoptNativeLibrary } from "../../src/ffi/library.ts";

addEventListener(
  "message",
  async ({ data }) => {
    adoptNativeLibrary(data);
    const { XtsCipher } = await import("../../src/disk/cipher.ts");
    const cipher = XtsCipher.attach(data.contextAddress);
    postMessage(cipher.encrypt(9, 2, data.source, data.target));
  },
  { once: true },
);
