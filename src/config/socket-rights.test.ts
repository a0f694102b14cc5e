import { expect, test } from "bun:test";
import { ConfigFolder, errorsOf } from "../../tests/support/config-folder.ts";
import { loadDeviceConfig } from "./load-config.ts";
import { socketRights } from "./socket-rights.ts";

const none = { mode: undefined, owner: undefined, group: undefined };
const rights = (settings: Partial<Record<keyof typeof none, string>>) =>
  socketRights("device.vhost_socket", { ...none, ...settings });

test("without the keys a socket has mode 0660 and keeps its owner", () => {
  expect(rights({})).toEqual({ mode: 0o660, owner: undefined, group: undefined });
});

test("a mode is octal; owner and group are names or numbers", () => {
  expect(rights({ mode: "0606", owner: "root", group: "4294967294" })).toEqual({
    mode: 0o606,
    owner: 0,
    group: 4_294_967_294,
  });
});

test.each([
  [{ owner: "no such user" }, 'vhost_socket_owner: there is no "no such user" in /etc/passwd'],
  [{ group: "x:y" }, 'vhost_socket_group: there is no "x:y" in /etc/group'],
  [{ group: "" }, 'vhost_socket_group: there is no "" in /etc/group'],
  [{ owner: "4294967295" }, "vhost_socket_owner: 4294967295 is no number of a user"],
])("%j is refused by the name of its key", (settings, message) => {
  expect(() => rights(settings)).toThrow(message);
});

const load = async (keys: string) => {
  const danger = "[danger_zone]\nenabled = true\nallow_unencrypted_disk = true\n";
  using folder = new ConfigFolder({ "c.toml": `[device]\ndata_path = "d"\n${keys}${danger}` });
  return await loadDeviceConfig(folder.file("c.toml"));
};

test.each(["660x", "8", "0888", "01770", "rw", ""])("the mode %j is no mode", async (mode) => {
  const errors = await errorsOf(load(`vhost_socket = "s"\nvhost_socket_mode = "${mode}"\n`));
  expect(errors).toContain(
    `device.vhost_socket_mode: ${JSON.stringify(mode)}: an octal mode such as "0660" is expected`,
  );
});

test("keys without their socket, and a socket that is open to all, give warnings", async () => {
  const { warnings } = await load(
    'vhost_socket = "s"\nvhost_socket_mode = "0666"\nrpc_socket_group = "root"\n',
  );
  expect(warnings.join("\n")).toContain("device.vhost_socket_mode: every user of this machine");
  expect(warnings.join("\n")).toContain(
    "device.rpc_socket_group: has no effect without device.rpc_socket",
  );
});
