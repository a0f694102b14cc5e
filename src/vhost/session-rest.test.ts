import { expect, test } from "bun:test";
import { SessionFrontEnd } from "../../tests/support/session-front-end.ts";
import { REQUEST } from "../formats/vhost-user.ts";
import { QueueCommand } from "./queue-mailbox.ts";

test("rest: all rings stop, and go on from where they stopped", () => {
  const frontEnd = serving();
  frontEnd.mailbox(0).nextAvailable = 7;
  frontEnd.mailbox(1).nextAvailable = 9;
  expect(frontEnd.session.rest(1000)).toBe(true);
  expect([0, 1].map((ring) => commandsOf(frontEnd, ring).at(-1))).toEqual([
    QueueCommand.stop,
    QueueCommand.stop,
  ]);
  frontEnd.session.resume();
  expect(frontEnd.mailbox(0).started()).toMatchObject({ nextAvailable: 7 });
  expect(frontEnd.mailbox(1).started()).toMatchObject({ nextAvailable: 9 });
  frontEnd.close();
});

test("rest: when one ring does not end its requests the others go on at once", () => {
  const frontEnd = serving();
  frontEnd.mailbox(0).nextAvailable = 7;
  frontEnd.mailbox(1).isStuck = true;
  expect(frontEnd.session.rest(0)).toBe(false);
  expect(commandsOf(frontEnd, 0).slice(-2)).toEqual([QueueCommand.stop, QueueCommand.start]);
  expect(frontEnd.mailbox(0).started()).toMatchObject({ nextAvailable: 7 });
  frontEnd.mailbox(1).isStuck = false;
  frontEnd.close();
});

test("rest: a session without rings rests at once", () => {
  const frontEnd = new SessionFrontEnd();
  expect(frontEnd.session.rest(0)).toBe(true);
  frontEnd.session.resume();
  expect(commandsOf(frontEnd, 0)).toEqual([]);
});

test("a ring that is left alone is no end for a next process, until the driver begins anew", () => {
  const frontEnd = new SessionFrontEnd();
  frontEnd.negotiate();
  frontEnd.mailbox(0).isLeavingAlone = true;
  frontEnd.setUpRing(0);
  frontEnd.setUpRing(1);
  frontEnd.mailbox(1).nextAvailable = 9;
  expect(frontEnd.session.hasRingLeftAlone).toBe(true);
  frontEnd.handle(REQUEST.RESET_DEVICE, new Uint8Array(), []);
  expect(frontEnd.session.hasRingLeftAlone).toBe(false);
  expect(frontEnd.ringEnds.all).toEqual([[1, 9]]);
  frontEnd.close();
});

// --- internal ---

function serving(): SessionFrontEnd {
  const frontEnd = new SessionFrontEnd();
  frontEnd.negotiate();
  frontEnd.setUpRing(0);
  frontEnd.setUpRing(1);
  return frontEnd;
}

function commandsOf(frontEnd: SessionFrontEnd, ring: number): readonly number[] {
  return frontEnd.mailbox(ring).commands.map(({ command }) => command);
}
