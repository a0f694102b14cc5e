/** From the letter that starts a ring to the ring: a new one, or one that an earlier back end left in the middle. */
import type { LogLimiter } from "../log.ts";
import type { DirtyLog } from "../virtio/dirty-log.ts";
import { type OpenedRing, openRing } from "../virtio/ring.ts";
import { type QueueMailbox, START_FIELDS } from "./queue-mailbox.ts";

export function startRing(
  mailbox: QueueMailbox,
  dirtyLog: DirtyLog,
  limiter: LogLimiter,
): OpenedRing {
  const argument = (field: (typeof START_FIELDS)[number]) =>
    mailbox.argument(START_FIELDS.indexOf(field));
  const isTracked = argument("notesAddress") !== 0;
  const opened = openRing({
    isPacked: argument("isPacked") === 1,
    areas: mailbox.ringAreas(),
    next: argument("nextAvailable"),
    hasEventIndex: argument("hasEventIndex") === 1,
    notes: isTracked
      ? { address: argument("notesAddress"), entries: argument("notesEntries") }
      : undefined,
    isForeign: argument("isForeign") === 1,
    dirtyLog,
  });
  const { againCount: count } = opened.ring;
  if (count > 0) {
    limiter.info("requests are done again", { count });
  }
  return opened;
}
