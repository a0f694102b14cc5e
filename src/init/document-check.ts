/** Checks the configuration of a new disk by the rules of all configurations, before anything is made. */
import { deviceRules } from "../config/document-rules.ts";
import type { TellWarning } from "../config/findings.ts";
import { dottedKey, type KeyPath } from "../config/key-positions.ts";
import { type DeviceConfig, deviceConfigOf } from "../config/load-config.ts";
import { checkDocument } from "../config/load-document.ts";
import { parseToml } from "../config/toml.ts";

/** The flags that keys come from. */
const FLAGS: Readonly<Record<string, string>> = {
  "device.data_path": "--disk",
  "device.vhost_socket": "--vhost-socket",
  "device.vhost_socket_group": "--vhost-socket-group",
  "device.rpc_socket": "--rpc-socket",
  "secrets.kek.source.credential": "--kek-credential",
  "device.device_id": "--device-id",
  "tuning.num_queues": "--num-queues",
  "tuning.queue_size": "--queue-size",
  "tuning.cpus": "--cpus",
  "stripe_source.bucket": "--s3",
  "stripe_source.prefix": "--s3",
  "stripe_source.region": "--s3-region",
  "stripe_source.endpoint": "--s3-endpoint",
  "stripe_source.credentials": "--s3-credentials",
  "stripe_source.address": "--remote",
  "stripe_source.psk.identity": "--psk-identity",
  "stripe_source.psk": "--psk",
};

/**
 * The checked configuration.
 * @param directory where relative paths start from
 * @param tell gets the warnings, each with the flag that it comes from, but for dangers
 * @throws UbiErrors with every mistake, likewise
 */
export function checkedConfig(text: string, directory: string, tell: TellWarning): DeviceConfig {
  const source = {
    table: parseToml(text, NAME),
    directory,
    files: [],
    warnings: [],
    originOf: (path: KeyPath) => ({ file: placeOf(path), fileIndex: 0 }),
    isWritten: () => true,
  };
  const rules = deviceRules({ require: ["vhost_socket", "metadata_path"], backend: "vhost" });
  const document = checkDocument(source, rules, (warning) => {
    if (!warning.startsWith(`${NAME}: danger_zone`)) {
      tell(warning); // dangers are told in another way: what uses them is not there yet
    }
  });
  return deviceConfigOf(document);
}

// --- internal ---

const NAME = "the new configuration";

function placeOf(path: KeyPath): string {
  for (let length = path.length; length > 0; length -= 1) {
    const flag = FLAGS[dottedKey(path.slice(0, length))];
    if (flag !== undefined) {
      return flag;
    }
  }
  return NAME;
}
