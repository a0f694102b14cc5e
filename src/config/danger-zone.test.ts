import { expect, test } from "bun:test";
import { ConfigFolder } from "../../tests/support/config-folder.ts";
import { DANGER_ZONE_OFF, ignoredFlags } from "./danger-zone.ts";
import { loadDeviceConfig } from "./load-config.ts";

test("no flag is ignored when none is set", () => {
  expect(ignoredFlags(DANGER_ZONE_OFF)).toEqual([]);
});

test("no flag is ignored when the zone is enabled", () => {
  const zone = { ...DANGER_ZONE_OFF, enabled: true, allow_unencrypted_disk: true };
  expect(ignoredFlags(zone)).toEqual([]);
});

test("flags without enabled are ignored, in the order of the manual", () => {
  const zone = {
    ...DANGER_ZONE_OFF,
    allow_inline_plaintext_secrets: true,
    allow_unencrypted_disk: true,
  };
  expect(ignoredFlags(zone)).toEqual(["allow_unencrypted_disk", "allow_inline_plaintext_secrets"]);
});

test("all five flags can be ignored", () => {
  const zone = {
    enabled: false,
    allow_unencrypted_disk: true,
    allow_inline_plaintext_secrets: true,
    allow_secret_over_regular_file: true,
    allow_unencrypted_connection: true,
    allow_env_secrets: true,
    allow_plain_archive: false,
    allow_archive_keys_in_clear: false,
    allow_remote_metrics: false,
  };
  expect(ignoredFlags(zone)).toHaveLength(5);
});

test("flags in force are reported with what uses them", async () => {
  using folder = new ConfigFolder({
    "c.toml":
      '[device]\ndata_path = "d"\n[danger_zone]\nenabled = true\nallow_unencrypted_disk = true\n' +
      "allow_env_secrets = true\n",
  });
  const { warnings } = await loadDeviceConfig(folder.file("c.toml"));
  expect(warnings).toEqual([
    `${folder.file("c.toml")}:3: danger_zone: in force: allow_unencrypted_disk, allow_env_secrets; ` +
      "used by: device.data_path (allow_unencrypted_disk)",
  ]);
});

test("flags that are ignored are reported", async () => {
  using folder = new ConfigFolder({
    "c.toml":
      '[device]\ndata_path = "d"\n[encryption]\nxts_key.ref = "k"\n' +
      '[secrets.k]\nsource.file = "k"\n[danger_zone]\nallow_env_secrets = true\n',
  });
  const { warnings } = await loadDeviceConfig(folder.file("c.toml"));
  expect(warnings.join("\n")).toContain(
    "danger_zone: ignored, because danger_zone.enabled is not true: allow_env_secrets",
  );
});

test("a secret in a regular file is among what uses its flag", async () => {
  using folder = new ConfigFolder({
    "c.toml":
      '[device]\ndata_path = "d"\n[encryption]\nxts_key.ref = "k"\n[secrets.k]\nsource.file = "k"\n' +
      "[danger_zone]\nenabled = true\nallow_secret_over_regular_file = true\n",
    k: "x",
  });
  const { warnings } = await loadDeviceConfig(folder.file("c.toml"));
  expect(warnings.join("\n")).toContain("used by: secrets.k (allow_secret_over_regular_file)");
});
