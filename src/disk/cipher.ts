/**
 * The disk's cipher: AES-256-XTS, one tweak a 512-byte sector (docs/encryption.md). The main thread
 * creates it and chooses the provider; workers attach to its expanded keys by address.
 */
import { assert, errnoText, UbiError } from "../errors.ts";
import { Arena } from "../ffi/arena.ts";
import {
  decryptXts,
  encryptXts,
  expandXts,
  wipeXts,
  XTS_KEY_BYTES,
  XTS_PROVIDER_NUMBERS,
  xtsContextBytes,
} from "../ffi/xts.ts";
import { chooseProvider, type XtsProvider } from "./cipher-provider.ts";

export interface XtsCipherOptions {
  /** Preferred over all others where it works. Without it: `UBIBLK_XTS_PROVIDER`, then the fastest. */
  readonly provider?: XtsProvider | undefined;
}

export class XtsCipher implements Disposable {
  /** For `XtsCipher.attach` in other threads, while this cipher is not disposed. */
  readonly contextAddress: number;
  /** What computes; "attached" where another thread chose it. */
  readonly provider: XtsProvider | "attached";
  readonly #isOwner: boolean;
  #isDisposed = false;

  private constructor(
    contextAddress: number,
    provider: XtsProvider | "attached",
    isOwner: boolean,
  ) {
    this.contextAddress = contextAddress;
    this.provider = provider;
    this.#isOwner = isOwner;
  }

  /**
   * Expands a key: 32 bytes data key, 32 bytes tweak key. The caller keeps its copy, and wipes it.
   * @throws UbiError E_CIPHER when no provider works
   */
  static create(key: Uint8Array, options: XtsCipherOptions = {}): XtsCipher {
    assert(key.length === XTS_KEY_BYTES, "an XTS key has 64 bytes");
    const provider = chooseProvider(options.provider);
    const arena = new Arena(xtsContextBytes());
    const result = expandXts(arena.address, key, XTS_PROVIDER_NUMBERS[provider]);
    if (result < 0) {
      arena[Symbol.dispose]();
      throw new UbiError("E_CIPHER", `cannot prepare the cipher ${provider}: ${errnoText(result)}`);
    }
    return new XtsCipher(arena.address, provider, true);
  }

  /** A cipher on the expanded keys of another thread's. Disposing of it leaves them alone. */
  static attach(contextAddress: number): XtsCipher {
    assert(contextAddress > 0, "a cipher is attached to a context");
    return new XtsCipher(contextAddress, "attached", false);
  }

  /**
   * Enciphers sectors from `source` to `target` (addresses; the same, or without overlap). 0 or a
   * negative errno, after which the target must not be used.
   */
  encrypt(sector: number, sectorCount: number, source: number, target: number): number {
    return encryptXts(this.contextAddress, sector, sectorCount, source, target);
  }

  /** As `encrypt`, the other way. */
  decrypt(sector: number, sectorCount: number, source: number, target: number): number {
    return decryptXts(this.contextAddress, sector, sectorCount, source, target);
  }

  /**
   * Wipes the keys. No thread may be using them. The empty page stays mapped, so that a late call gets
   * -EBADF instead of ending the process.
   */
  [Symbol.dispose](): void {
    if (this.#isOwner && !this.#isDisposed) {
      wipeXts(this.contextAddress);
    }
    this.#isDisposed = true;
  }
}
