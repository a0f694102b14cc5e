/** A disk that is filled from the stripe server of this executable over TLS: both have the same key. */
import type { LazyDisk, LazyDiskOptions } from "./lazy-disk.ts";
import { type RunningServer, startStripeServer } from "./stripe-server.ts";

const PSK = 'psk = { identity = "client", secret.ref = "psk" }';
const PSK_SECTION = '[secrets.psk]\nsource.file = "psk"';
const ZONE = "[danger_zone]\nenabled = true\nallow_secret_over_regular_file = true";

/** Serves the image of `disk`, in stripes of 1 MiB. @param port 0 for any */
export function serveImage(disk: LazyDisk, port = 0): Promise<RunningServer> {
  disk.files.write("psk", new TextEncoder().encode("a secret of 16 or more bytes"));
  disk.files.write(
    "server.toml",
    `[device]\ndata_path = "image.raw"\n${ZONE}\nallow_unencrypted_disk = true\n`,
  );
  disk.files.write(
    "listen.toml",
    `[server]\naddress = "127.0.0.1:${port}"\n${PSK}\n${PSK_SECTION}\n${ZONE}\n`,
  );
  const flags = ["-f", "server.toml", "--listen-config", "listen.toml"];
  return startStripeServer(disk.files.folder, flags);
}

/** Has it filled from there. */
export function fillFrom(
  disk: LazyDisk,
  port: number,
  changes: Partial<LazyDiskOptions> = {},
): void {
  disk.configure({
    ...changes,
    origin: `type = "remote"\naddress = "127.0.0.1:${port}"\n${PSK}`,
    sections: `${PSK_SECTION}\n${changes.sections ?? ""}`,
  });
}
