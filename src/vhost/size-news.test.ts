/** Who is told of a larger disk, and what is told of that, with a session made by hand. */
import { expect, test } from "bun:test";
import { DiskSize } from "../device/disk-size.ts";
import { UbiError } from "../errors.ts";
import { LogLimiter } from "../log.ts";
import type { BackChannel, ChannelAnswer } from "./back-channel.ts";
import { type NewsSession, SizeNews } from "./size-news.ts";

test("nothing has changed: nobody is told, and nothing is waited for", () => {
  const world = started();
  world.news.advance(world.session, false, 0);
  expect(world.log).toEqual([]);
  expect(world.news.waitMs(0)).toBe(-1);
});

test("a front end that confirms: told when it has answered", () => {
  const world = started();
  world.size.grow(16);
  world.news.advance(world.session, false, 1000);
  expect(world.log).toEqual(["message, reply wanted"]);
  expect(world.news.waitMs(1500)).toBe(4500);
  world.answer = "none";
  world.news.advance(world.session, true, 2000);
  world.answer = "done";
  world.news.advance(world.session, true, 3000);
  expect(world.log).toEqual(["message, reply wanted", "told"]);
  expect(world.news.waitMs(3000)).toBe(-1);
});

test("a front end that could do nothing with it: said so", () => {
  const world = started();
  world.size.grow(16);
  world.answer = "refused";
  world.news.advance(world.session, false, 0);
  world.news.advance(world.session, true, 0);
  expect(world.log.at(-1)).toBe("refused");
});

test("a front end that never answers: sent, after five seconds", () => {
  const world = started();
  world.size.grow(16);
  world.news.advance(world.session, false, 0);
  world.news.advance(world.session, false, 4999);
  expect(world.log).toEqual(["message, reply wanted"]);
  world.news.advance(world.session, false, 5000);
  expect(world.log).toEqual(["message, reply wanted", "sent"]);
});

test("a front end without acknowledgements: sent at once", () => {
  const world = started({ hasReplyAck: false });
  world.size.grow(16);
  world.news.advance(world.session, false, 0);
  expect(world.log).toEqual(["message", "sent"]);
});

test("a front end without a channel, and none at all: at the next connection", () => {
  const world = started({ hasChannel: false });
  world.size.grow(16);
  world.news.advance(world.session, false, 0);
  world.size.grow(32);
  world.news.advance(undefined, false, 0);
  expect(world.log).toEqual(["next_connection", "next_connection"]);
});

test("a front end that leaves before it answers: the next one is to know", () => {
  const world = started();
  world.size.grow(16);
  world.news.advance(world.session, false, 0);
  world.news.left();
  world.news.left();
  expect(world.log).toEqual(["message, reply wanted", "next_connection"]);
});

test.each([
  { fails: "message", log: ["closed", "next_connection"] },
  { fails: "answer", log: ["message, reply wanted", "closed", "sent"] },
] as const)("a channel that breaks at the $fails is closed", ({ fails, log }) => {
  const world = started({ fails });
  world.size.grow(16);
  world.news.advance(world.session, false, 0);
  world.news.advance(world.session, true, 0);
  expect(world.log).toEqual([...log]);
});

// --- internal ---

function started(
  options: {
    readonly hasReplyAck?: boolean;
    readonly hasChannel?: boolean;
    readonly fails?: "message" | "answer";
  } = {},
) {
  const { hasReplyAck = true, hasChannel = true, fails } = options;
  const log: string[] = [];
  const size = DiskSize.create(8);
  const world = { log, size, answer: "none" as ChannelAnswer };
  const fail = () => {
    throw new UbiError("E_SOCKET", "it broke");
  };
  const channel: Pick<BackChannel, "tellConfigChange" | "receive"> = {
    tellConfigChange: (needsReply) => {
      if (fails === "message") {
        fail();
      }
      log.push(needsReply ? "message, reply wanted" : "message");
    },
    receive: () => (fails === "answer" ? fail() : world.answer),
  };
  let open = hasChannel ? channel : undefined;
  const session: NewsSession = {
    hasReplyAck,
    get backChannel() {
      return open;
    },
    closeBackChannel: () => {
      log.push("closed");
      open = undefined;
    },
  };
  const threadSize = new DiskSize(size.shared);
  const news = new SizeNews(threadSize, new LogLimiter(), (guest) => log.push(guest));
  return Object.assign(world, { session, news });
}
