/**
 * Brings the news of a larger disk to the front end, and tells what became of it. The front end reads the configuration
 * space again then, and tells the guest; without a channel to it the guest sees the size when it connects next.
 */

import type { GuestNews } from "../device/disk-growth.ts";
import type { DiskSize } from "../device/disk-size.ts";
import { UbiError } from "../errors.ts";
import type { LogLimiter } from "../log.ts";
import type { BackChannel, ChannelAnswer } from "./back-channel.ts";

/** What the news need of a session. */
export interface NewsSession {
  readonly hasReplyAck: boolean;
  readonly backChannel: Pick<BackChannel, "tellConfigChange" | "receive"> | undefined;
  closeBackChannel(): void;
}

/** A front end that answers at all does so when it has read 60 bytes. */
const ANSWER_MS = 5_000;

export class SizeNews {
  readonly #size: DiskSize;
  readonly #tell: (news: GuestNews) => void;
  readonly #limiter: LogLimiter;
  /** Until when an answer is waited for; undefined when none is. */
  #deadlineMs: number | undefined;

  constructor(size: DiskSize, limiter: LogLimiter, tell: (news: GuestNews) => void) {
    this.#size = size;
    this.#limiter = limiter;
    this.#tell = tell;
  }

  /** How long `advance` may wait for its next call though nothing happens; -1 for ever. */
  waitMs(nowMs: number): number {
    return this.#deadlineMs === undefined ? -1 : Math.max(0, Math.ceil(this.#deadlineMs - nowMs));
  }

  /**
   * Once a turn.
   * @param session of the front end that is connected
   * @param isReadable its back channel has something
   */
  advance(session: NewsSession | undefined, isReadable: boolean, nowMs: number): void {
    if (this.#size.hasGrown()) {
      this.#send(session, nowMs);
    }
    if (session !== undefined && isReadable) {
      this.#hear(session);
    }
    if (this.#deadlineMs !== undefined && nowMs >= this.#deadlineMs) {
      this.#end("sent");
    }
  }

  /** The front end has left. */
  left(): void {
    if (this.#deadlineMs !== undefined) {
      this.#end("next_connection");
    }
  }

  // --- internal ---

  #send(session: NewsSession | undefined, nowMs: number): void {
    if (session?.backChannel === undefined) {
      this.#end("next_connection");
      return;
    }
    try {
      session.backChannel.tellConfigChange(session.hasReplyAck);
    } catch (error) {
      this.#lose(session, error);
      this.#end("next_connection");
      return;
    }
    if (session.hasReplyAck) {
      this.#deadlineMs = nowMs + ANSWER_MS;
    } else {
      this.#end("sent");
    }
  }

  #hear(session: NewsSession): void {
    let answer: ChannelAnswer | undefined;
    try {
      answer = session.backChannel?.receive();
    } catch (error) {
      this.#lose(session, error);
      if (this.#deadlineMs !== undefined) {
        this.#end("sent");
      }
      return;
    }
    if (this.#deadlineMs !== undefined && answer !== undefined && answer !== "none") {
      this.#end(answer === "done" ? "told" : "refused");
    }
  }

  #lose(session: NewsSession, error: unknown): void {
    if (!(error instanceof UbiError)) {
      throw error;
    }
    session.closeBackChannel();
    this.#limiter.info("the channel to the front end is closed", { why: error.message });
  }

  #end(news: GuestNews): void {
    this.#deadlineMs = undefined;
    this.#tell(news);
  }
}
