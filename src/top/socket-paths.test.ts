/** Which sockets the user's words stand for. */
import { expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { findSockets, parseSocketNames } from "./socket-paths.ts";

test("lists, paths and patterns are told apart", () => {
  expect(parseSocketNames(["/a.sock,b.sock", "/run/*.rpc", "/run/disk?/[ab].sock"])).toEqual({
    paths: ["/a.sock", "b.sock"],
    patterns: ["/run/*.rpc", "/run/disk?/[ab].sock"],
  });
});

test.each([[[]], [[""]], [["a,,b"]]])("%j: told", (words) => {
  expect(() => parseSocketNames(words)).toThrow("the path of an RPC socket is missing");
});

test("patterns: sockets only, each once, in order; names outright stay although nothing is there", () => {
  using place = makePlace();
  const { folder } = place;
  const names = parseSocketNames([`${folder}/none.rpc`, `${folder}/*/?.rpc`, `${folder}/d2/b.rpc`]);
  expect(findSockets(names)).toEqual([
    `${folder}/none.rpc`,
    `${folder}/d2/b.rpc`,
    `${folder}/d1/a.rpc`,
  ]);
});

test("a name with wildcard characters that exists is a path", () => {
  using place = makePlace();
  const odd = join(place.folder, "odd[1],x*.rpc");
  writeFileSync(odd, "");
  expect(parseSocketNames([odd])).toEqual({ paths: [odd], patterns: [] });
});

// --- internal ---

/** Two folders with a socket each, and a file that only looks like one. */
function makePlace(): Disposable & { readonly folder: string } {
  const folder = mkdtempSync(join(tmpdir(), "top-"));
  mkdirSync(join(folder, "d1"));
  mkdirSync(join(folder, "d2"));
  const sockets = ["d1/a.rpc", "d2/b.rpc"].map((name) =>
    Bun.listen({ unix: join(folder, name), socket: { data: () => {} } }),
  );
  writeFileSync(join(folder, "d1", "c.rpc"), "");
  return {
    folder,
    [Symbol.dispose]: () => {
      for (const socket of sockets) {
        socket.stop(true);
      }
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
