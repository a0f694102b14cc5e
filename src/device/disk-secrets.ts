/**
 * The secrets of a disk: of `[encryption]`, needed first, and of `[stripe_source]`, needed only while stripes are to
 * be fetched. A pipe can be read only once: a secret that both need is read with the first.
 */
import { type DeviceConfig, resolveSecrets } from "../config/index.ts";
import type { ResolvedSecrets } from "../config/resolve-secrets.ts";
import { XtsCipher } from "../disk/cipher.ts";

export class DiskSecrets implements Disposable {
  /** Undefined for a disk without `[encryption]`. Belongs to the caller. */
  readonly cipher: XtsCipher | undefined;
  readonly #config: DeviceConfig;
  readonly #signal: AbortSignal | undefined;
  #ofSource: ResolvedSecrets | undefined;

  private constructor(
    config: DeviceConfig,
    signal: AbortSignal | undefined,
    cipher: XtsCipher | undefined,
    ofSource: ResolvedSecrets | undefined,
  ) {
    this.#config = config;
    this.#signal = signal;
    this.cipher = cipher;
    this.#ofSource = ofSource;
  }

  /**
   * Reads the disk's key. Last of all checks: it may come from a pipe that can be read only once.
   * @param signal ends the wait for the writer of a pipe, also that of a source's secret
   * @throws UbiErrors, UbiError E_SECRET*, E_CIPHER; the signal's reason
   */
  static async read(config: DeviceConfig, signal?: AbortSignal): Promise<DiskSecrets> {
    const { encryption } = config;
    if (encryption === undefined) {
      return new DiskSecrets(config, signal, undefined, undefined);
    }
    const isShared = haveCommonSecret(config);
    const users = ["encryption", "stripe_source"] as const;
    const secrets = await resolveSecrets(config, isShared ? users : ["encryption"], signal);
    try {
      const cipher = XtsCipher.create(secrets.get(encryption.xtsKey).bytes);
      return new DiskSecrets(config, signal, cipher, isShared ? secrets : undefined);
    } catch (error) {
      secrets[Symbol.dispose]();
      throw error;
    } finally {
      if (!isShared) {
        secrets[Symbol.dispose]();
      }
    }
  }

  /**
   * Those of `[stripe_source]`. They are wiped with this object.
   * @throws UbiErrors, UbiError E_SECRET*; the signal's reason
   */
  async ofSource(): Promise<ResolvedSecrets> {
    this.#ofSource ??= await resolveSecrets(this.#config, ["stripe_source"], this.#signal);
    return this.#ofSource;
  }

  /** Wipes what was read, but not the cipher. */
  [Symbol.dispose](): void {
    this.#ofSource?.[Symbol.dispose]();
    this.#ofSource = undefined;
  }
}

// --- internal ---

/** Whether both sections need a secret, or a key that secrets are encrypted with. */
function haveCommonSecret({ secrets }: DeviceConfig): boolean {
  const namesOf = (user: string) =>
    secrets.uses.filter((use) => use.path[0] === user).flatMap((use) => secrets.chain(use.name));
  const ofDisk = new Set(namesOf("encryption"));
  return namesOf("stripe_source").some((name) => ofDisk.has(name));
}
