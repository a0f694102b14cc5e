/** The cipher of a configured disk: of its data and of its metadata file. */
import { type DeviceConfig, resolveSecrets } from "../config/index.ts";
import { XtsCipher } from "../disk/cipher.ts";

/**
 * Reads the disk's key, and only that; undefined for a disk without `[encryption]`. Last of all checks: the
 * key may come from a pipe that can be read only once.
 * @throws UbiErrors, UbiError E_SECRET*, E_CIPHER
 */
export async function openDiskCipher(config: DeviceConfig): Promise<XtsCipher | undefined> {
  if (config.encryption === undefined) {
    return undefined;
  }
  using secrets = await resolveSecrets(config, ["encryption"]);
  return XtsCipher.create(secrets.get(config.encryption.xtsKey).bytes);
}
