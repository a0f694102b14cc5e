import { expect, test } from "bun:test";
import { ScriptedServer } from "../../tests/support/scripted-server.ts";
import { DIALS_MAX, RemoteSlot, type SlotOwner } from "./remote-slot.ts";

test("a place that dialled too often is given up also while its next dial hangs, until it is connected", () => {
  using server = new ScriptedServer({ flags: [4] });
  const owner = new Owner(server.port);
  using slot = new RemoteSlot(owner);
  let nowMs = 0;
  for (let i = 0; i <= DIALS_MAX; i++) {
    expect(slot.isGivenUp).toBe(false);
    nowMs += 60_000;
    slot.run(nowMs, false);
  }
  expect(slot.isGivenUp).toBe(true);
  owner.addresses = ["127.0.0.1"];
  slot.run(nowMs + 60_000, false);
  expect(slot.connection?.phase).toBe("connecting");
  expect(slot.isGivenUp).toBe(true);
});

test("a place that served a read has no failures any more", () => {
  const owner = new Owner(1);
  using slot = new RemoteSlot(owner);
  slot.run(60_000, false);
  expect(slot.hasFailed).toBe(true);
  slot.noteServed();
  expect(slot.hasFailed).toBe(false);
});

class Owner implements SlotOwner {
  readonly identity = { stripeShift: 3, stripeCount: 1, contentDigest: "", metadataDigest: "" };
  readonly settings: SlotOwner["settings"];
  addresses: readonly string[] = [];

  constructor(port: number) {
    const address = { kind: "tcp", host: "127.0.0.1", port } as const;
    const timeoutMs = 3000;
    this.settings = {
      address,
      tls: undefined,
      connectTimeoutMs: timeoutMs,
      operationTimeoutMs: timeoutMs,
    };
  }

  hosts(): readonly string[] {
    return this.addresses;
  }

  noteRetry(): void {}

  connectionEnded(): void {}

  readEnded(): void {}
}
