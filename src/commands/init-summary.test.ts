import { expect, test } from "bun:test";
import type { MadeDisk } from "../init/make-disk.ts";
import { madeJson, madeText } from "./init-summary.ts";

const MADE: MadeDisk = {
  folder: "/vm",
  configPath: "/vm/config.toml",
  dataPath: "/vm/disk.raw",
  sizeBytes: 2 ** 30,
  metadataPath: "/vm/metadata",
  stripeBytes: 2 ** 20,
  stripeCount: 1024,
  sourceStripes: 5,
  keyPath: "/vm/kek",
  isEncrypted: true,
  kekCredential: undefined,
  vhostSocket: "/vm/vhost.sock",
  rpcSocket: "/vm/rpc.sock",
  queues: 2,
  dangers: [],
  replaced: [],
  warnings: [],
};

test("what was made, what to keep, and the next commands", () => {
  const text = madeText(MADE);
  expect(text).toContain("1.0 GiB, encrypted\n");
  expect(text).toContain("1024 stripes of 1.0 MiB, 5 in the source\n");
  expect(text).toContain("the KEK: keep a copy in another place");
  expect(text).toContain("\n  ubiblk vhost --config /vm/config.toml\n");
  expect(text).toContain("path=/vm/vhost.sock,reconnect=1 -device vhost-user-blk-pci");
  expect(text).toContain("num-queues=2\n");
  expect(text).toEndWith("\n  ubiblk top /vm/rpc.sock\n");
});

test("a KEK that is a credential is given to the service that serves the disk", () => {
  const kekCredential = { name: "host-kek", path: "/keys of it/host.kek" };
  const [serve] = JSON.parse(madeJson({ ...MADE, kekCredential })).next;
  expect(serve).toBe(
    "systemd-run --collect -p 'LoadCredential=host-kek:/keys of it/host.kek' ubiblk vhost --config /vm/config.toml",
  );
  const configPath = "/etc/ubiblk/disk1.toml";
  const text = madeText({ ...MADE, kekCredential, keyPath: undefined, configPath });
  expect(text).toContain("enable --now ubiblk-vhost@disk1.service\n");
  expect(text).toContain("needs LoadCredential=host-kek:/keys of it/host.kek\n");
});

test("paths are one word for the shell, and a comma one letter for QEMU", () => {
  const paths = { configPath: "/it's here/config.toml", vhostSocket: "/a,b c/vhost.sock" };
  const text = madeText({ ...MADE, ...paths });
  expect(text).toContain("ubiblk vhost --config '/it'\\''s here/config.toml'\n");
  expect(text).toContain("-chardev 'socket,id=disk0,path=/a,,b c/vhost.sock,reconnect=1'");
});

test("a disk of the units is served by one of them", () => {
  const text = madeText({ ...MADE, configPath: "/etc/ubiblk/disk1.toml" });
  expect(text).toContain(
    "\n  chown ubiblk: /etc/ubiblk/disk1.toml /vm/metadata /vm/disk.raw" +
      " && systemctl enable --now ubiblk-vhost@disk1.service\n",
  );
});

test("a hostile path acts on no terminal, and stays one word with the same bytes", () => {
  const configPath = "/a'\\\u001b[2J\n\u009b2J/config.toml";
  const text = madeText({ ...MADE, configPath });
  expect(text.replaceAll("\n", "")).not.toMatch(/\p{Cc}/u);
  expect(text).toContain("\n  /a'\\\\u001b[2J\\n\\u009b2J/config.toml  the configuration\n");
  const word = /--config (.*)\n/.exec(text)?.[1] ?? "";
  const { stdout } = Bun.spawnSync(["bash", "-c", `printf %s ${word}`]);
  expect(stdout.toString()).toBe(configPath);
});

test("JSON is one line and has no key that is missing", () => {
  const facts = JSON.parse(madeJson({ ...MADE, keyPath: undefined }));
  expect(madeJson(MADE).split("\n")).toHaveLength(2);
  expect(facts).toMatchObject({ key_file: null, source_stripes: 5, queues: 2 });
  expect(facts.next).toHaveLength(3);
});
