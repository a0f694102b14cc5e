/**
 * Configuration: documents and their includes, one schema, secrets. Loading checks all that needs no
 * secret and reports every mistake at once; `resolveSecrets` then reads what a program needs.
 */
export {
  type DeviceConfig,
  type KeyConfig,
  loadArchiveConfig,
  loadDeviceConfig,
  loadKeyConfig,
  loadServerConfig,
  loadTargetConfig,
  type ServerConfig,
  type TargetConfig,
} from "./load-config.ts";
export { resolveSecrets } from "./resolve-secrets.ts";
export { socketRights } from "./socket-rights.ts";
