/** What a stripe server answers. */
import packageJson from "../../package.json" with { type: "json" };
import type { ServerConfig } from "../config/index.ts";
import { clockNs } from "../ffi/event.ts";
import { countStripes, stripeBytes } from "../formats/metadata.ts";
import { type AnswerRequest, processAnswer } from "../rpc/index.ts";
import type { ServedDisk } from "../serve/served-disk.ts";
import { type ServerFacts, serverAnswer } from "../serve/server-answers.ts";
import type { ServerStatistics } from "../serve/server-statistics.ts";
import { buffersFor } from "../serve/stripe-reads.ts";
import type { StripeServer } from "../serve/stripe-server.ts";

export interface WatchedServer {
  readonly disk: ServedDisk;
  readonly statistics: ServerStatistics;
  /** Undefined until it listens. */
  readonly server: () => StripeServer | undefined;
  readonly stop: () => void;
}

export function serverAnswers(
  config: ServerConfig,
  { disk, statistics, server, stop }: WatchedServer,
): AnswerRequest {
  const { metadata } = disk;
  const bytes = stripeBytes(metadata);
  const nowMs = () => clockNs() / 1e6;
  const facts: ServerFacts = {
    version: packageJson.version,
    serves: disk.name,
    stripeCount: metadata.stripeCount,
    stripeBytes: bytes,
    fromSource: countStripes(metadata.flags).unfetched,
    sourceState: () => disk.sourceState,
    isTls: config.server.psk !== undefined,
    listeners: () => server()?.places.map(({ name }) => name) ?? [],
    isDraining: () => server()?.isStopping === true,
    statistics,
    stop,
    bufferCount: buffersFor(bytes),
    nowMs,
    startMs: nowMs(),
  };
  return ({ command }) => processAnswer(command) ?? serverAnswer(facts, command);
}
