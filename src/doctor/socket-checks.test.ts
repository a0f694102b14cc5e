import { expect, test } from "bun:test";
import { createServer } from "node:net";
import { answerOf } from "./rpc-question.ts";
import {
  addressFinding,
  lengthFinding,
  missingFolderFinding,
  modeFinding,
  rightsFindings,
  stateFinding,
} from "./socket-checks.ts";

test("path: 107 bytes fit a socket, 108 do not", () => {
  expect(lengthFinding("x".repeat(107))).toBeUndefined();
  expect(lengthFinding("ä".repeat(54))).toMatchObject({ verdict: "fail" });
});

test.each([
  { state: "absent", listener: "nobody", verdict: "ok", found: "is free" },
  { state: "other", listener: "nobody", verdict: "fail", found: "not a socket" },
  { state: "socket", listener: "listening", verdict: "ok", found: "listens at" },
  { state: "socket", listener: "nobody", verdict: "warn", found: "a process that died" },
  { state: "socket", listener: { error: "EACCES" }, verdict: "warn", found: "EACCES" },
  { state: { error: "cannot look" }, listener: "nobody", verdict: "fail", found: "cannot look" },
] as const)("socket %j", ({ state, listener, verdict, found }) => {
  const finding = stateFinding("/run/x.sock", state, listener);
  expect(finding.verdict).toBe(verdict);
  expect(finding.found).toContain(found);
});

test.each([
  ["/run/ubiblk/disk1", "ENOENT", "warn"],
  ["/var/run/ubiblk/disk1", "ENOENT", "warn"],
  ["/run/ubiblk/disk1", "EACCES", "fail"],
  ["/srv/ubiblk", "ENOENT", "fail"],
  ["/running/ubiblk", "ENOENT", "fail"],
] as const)(
  "folder %s, %s: %s, since those of units go with their service",
  (folder, code, verdict) => {
    const error = Object.assign(new Error(code), { code });
    expect(missingFolderFinding(folder, error).verdict).toBe(verdict);
  },
);

test("folder: one that everybody may write to is a warning, sticky or not", () => {
  expect(modeFinding("/run/ubiblk", 0o40750).verdict).toBe("ok");
  expect(modeFinding("/tmp", 0o41777).verdict).toBe("warn");
});

test("answer of an RPC socket: a version, or what is wrong with it", () => {
  expect(answerOf('{"version":"0.6.0"}\n')).toEqual({ version: "0.6.0" });
  expect(answerOf('{"error":"x"}\n')).toMatchObject({
    problem: expect.stringContaining("names no"),
  });
  expect(answerOf("SSH-2.0\n")).toMatchObject({ problem: expect.stringContaining("no JSON") });
  expect(answerOf('{"version":7}\n')).toMatchObject({ problem: expect.any(String) });
});

const UNSET = { mode: undefined, owner: undefined, group: undefined };

test("rights: those that a backend would give, or a name that it would not find", () => {
  const [given] = rightsFindings("device.rpc_socket", "/x", { ...UNSET, mode: "0600", group: "0" });
  expect(given).toEqual({
    check: "rights",
    verdict: "ok",
    found: "mode 0600, owner that of the backend, group 0",
  });
  expect([...rightsFindings("device.rpc_socket", undefined, UNSET)]).toEqual([]);
  const unknown = { ...UNSET, group: "no such group" };
  const [missing] = rightsFindings("device.rpc_socket", undefined, unknown);
  expect(missing).toMatchObject({
    verdict: "fail",
    found: expect.stringContaining('device.rpc_socket_group: there is no "no such group"'),
  });
});

test("address: free, or in use by another program; where the disk is served by that process", async () => {
  const server = createServer();
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  const bound = server.address();
  const address = `127.0.0.1:${typeof bound === "object" ? bound?.port : ""}`;
  expect(addressFinding(address, undefined)).toMatchObject({
    verdict: "fail",
    found: expect.stringContaining("another program listens there"),
  });
  expect(addressFinding(address, process.pid).verdict).toBe("ok");
  await new Promise((done) => server.close(done));
  expect(addressFinding(address, undefined).verdict).toBe("ok");
  expect(addressFinding("192.0.2.1:1", process.pid).verdict).toBe("fail"); // no address of any machine
});
