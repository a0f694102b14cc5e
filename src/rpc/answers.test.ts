/** Every command's answer, byte for byte, on statistics made by hand. */
import { expect, test } from "bun:test";
import fc from "fast-check";
import { DiskLimits } from "../device/disk-limits.ts";
import type { FetchFacts } from "../device/disk-stripes.ts";
import { NO_LIMITS } from "../device/limit-settings.ts";
import { OverdueRequests } from "../device/overdue-requests.ts";
import { bucketLimitNs, bucketOf, Counter, QueueStatistics } from "../device/queue-statistics.ts";
import { Operation } from "../disk/request-table.ts";
import { SlotWaits } from "../disk/slot-waits.ts";
import { UbiError } from "../errors.ts";
import { answerLine as lineFor } from "./answer-lines.ts";
import { diskAnswer, REQUESTS_LISTED_MAX, type RpcFacts } from "./answers.ts";
import type { DiskControl } from "./disk-commands.ts";

const CONTROL: DiskControl = {
  stop: () => {},
  resize: async () => ({ bytesBefore: 1024, bytes: 2048, guest: "told" }),
  upgrade: async () => ({ pause_ms: 12, pid: 77, version: "2.0.0" }),
};

const answerLine = (facts: RpcFacts, line: string): string => {
  const answer = lineFor((request) => diskAnswer(facts, request), line);
  if (typeof answer !== "string") {
    throw new Error(`${line} is not answered at once`);
  }
  return answer;
};

test("version: the one given", () => {
  expect(ask(makeFacts(0), "version")).toBe('{"version":"1.2.3"}\n');
});

test("stop: asked for, and said so", () => {
  let asked = 0;
  const stop = () => {
    asked += 1;
  };
  const control = { ...CONTROL, stop };
  expect(ask({ ...makeFacts(0), control }, "stop")).toBe('{"stop":{"stopping":true}}\n');
  expect(asked).toBe(1);
});

test("resize: what the disk has grown to, and whether the guest knows", async () => {
  const facts = makeFacts(0);
  const answer = lineFor((request) => diskAnswer(facts, request), '["resize"]');
  expect(await answer).toBe('{"resize":{"bytes":2048,"bytes_before":1024,"guest":"told"}}\n');
});

test("resize that cannot be: the reason", async () => {
  const resize = () => Promise.reject(new UbiError("E_RESIZE", "it is smaller"));
  const facts = { ...makeFacts(0), control: { ...CONTROL, resize } };
  const answer = lineFor((request) => diskAnswer(facts, request), '["resize"]');
  expect(await answer).toBe('{"code":"E_RESIZE","error":"it is smaller"}\n');
});

test("status without metadata: null", () => {
  expect(ask(makeFacts(1), "status")).toBe('{"status":null}\n');
});

test("status with metadata: counts of stripes, keys in alphabetical order", () => {
  const facts = { ...makeFacts(1), stripes: () => ({ total: 64, source: 16, fetched: 2 }) };
  expect(ask(facts, "status")).toBe(
    '{"status":{"stripes":{"fetched":2,"source":16,"total":64}}}\n',
  );
});

test("a request that takes too long: beside the status, which is as it was, and in answers of its own", () => {
  const { queues, ...facts } = makeFacts(2);
  const overdue = new OverdueRequests({
    thresholdMs: 1,
    queues,
    waits: queues.map(() => SlotWaits.unseen(SLOTS)),
    progress: () => undefined,
  });
  const late = { ...facts, queues, overdue, nowNs: () => 5e6 };
  const nothing = '{"count":0,"requests":[],"silent_threads":[],"threshold_ns":1000000}';
  expect(ask(late, "overdue")).toBe(`{"overdue":${nothing}}\n`);
  queues[1]?.begin(0, Operation.read, 64, 4096, 1e6);
  queues[1]?.begin(1, Operation.read, 72, 4096, 4.5e6);
  const request =
    '{"age_ns":4000000,"operation":"read","queue":1,"sector":64,"sectors":8,"waits_for":"disk"}';
  const one = `{"count":1,"requests":[${request}],"silent_threads":[],"threshold_ns":1000000}`;
  expect(ask(late, "overdue")).toBe(`{"overdue":${one}}\n`);
  expect(ask(late, "status")).toBe(`{"overdue":${one},"status":null}\n`);
  expect(ask(late, "statistics")).toContain('"overdue":1');
  queues[1]?.end(0, true, 5e6);
  expect(ask(late, "status")).toBe('{"status":null}\n');
  overdue.silentThreads = ["queue 1"];
  expect(ask(late, "status")).toContain('"silent_threads":["queue 1"]');
});

test("status of a disk with stripes to fetch: an object beside the counts", () => {
  const facts = {
    ...makeFacts(1),
    stripes: () => ({ total: 64, source: 16, fetched: 2 }),
    fetch: () => new FakeFetch(),
  };
  expect(ask(facts, "status")).toBe(
    '{"status":{"fetch":{"ahead_fetches":9,"background_fetches":5,"bytes_per_second":1000,"demand_fetches":6,"eta_seconds":null,' +
      '"failed":1,"failed_stripes":[7],"failures":11,"in_flight":2,"limit_bytes_per_second":null,"paused":false,"retries":3,' +
      '"source_bytes":3145728,"source_state":"open","stripe_bytes":1048576,"unfetched":14,"written":4,"zero_stripes":8},' +
      '"stripes":{"fetched":2,"source":16,"total":64}}}\n',
  );
});

test("the fetch is paused, resumed, limited, unlimited and tried again; the answer tells how it stands then", () => {
  const fetch = new FakeFetch();
  const facts = { ...makeFacts(1), fetch: () => fetch };
  const paused: unknown = JSON.parse(ask(facts, "pause_fetch"));
  const limited = '{"command":"set_fetch_rate","bytes_per_second":1048576}';
  expect(paused).toMatchObject({ fetch: { paused: true } });
  expect(JSON.parse(ask(facts, "resume_fetch"))).toMatchObject({ fetch: { paused: false } });
  expect(answerLine(facts, limited)).toContain('"limit_bytes_per_second":1048576');
  const unlimited = '{"command":"set_fetch_rate","bytes_per_second":null}';
  expect(answerLine(facts, unlimited)).toContain('"limit_bytes_per_second":null');
  ask(facts, "retry_failed");
  expect(fetch.asked).toEqual(["pause", "resume", "limit 1048576", "limit Infinity", "retry"]);
});

test.each(["", ',"bytes_per_second":0', ',"bytes_per_second":"fast"', ',"bytes_per_second":-1'])(
  "set_fetch_rate%s: refused, and nothing changes",
  (member) => {
    const fetch = new FakeFetch();
    const facts = { ...makeFacts(1), fetch: () => fetch };
    const answer = answerLine(facts, `{"command":"set_fetch_rate"${member}}`);
    expect(answer).toStartWith('{"code":"E_RPC_REQUEST","error":"invalid request: ');
    expect(fetch.asked).toEqual([]);
  },
);

test.each(["pause_fetch", "resume_fetch", "retry_failed", "set_fetch_rate"])(
  "%s of a disk with nothing to fetch is an error",
  (command) => {
    expect(ask(makeFacts(1), command)).toStartWith('{"code":"E_RPC_NO_FETCH","error":"');
  },
);

test("queues: of three, requests in flight by slot, in sectors", () => {
  const facts = makeFacts(3);
  facts.queues[0]?.begin(2, Operation.write, 4, 5 * 512, 0);
  facts.queues[0]?.begin(1, Operation.read, 2, 3 * 512, 0);
  facts.queues[0]?.begin(0, Operation.flush, 0, 0, 0);
  facts.queues[2]?.begin(7, Operation.read, 0, 512, 0);
  expect(ask(facts, "queues")).toBe(
    '{"queues":[[["flush"],["read",2,3],["write",4,5]],[],[["read",0,1]]]}\n',
  );
});

test("queues: none at all, and nothing in flight", () => {
  expect(ask(makeFacts(0), "queues")).toBe('{"queues":[]}\n');
  expect(ask(makeFacts(2), "queues")).toBe('{"queues":[[],[]]}\n');
});

test("queues: discards and write-zeroes are left out, ended requests are gone", () => {
  const facts = makeFacts(1);
  facts.queues[0]?.begin(0, Operation.discard, 8, 512, 0);
  facts.queues[0]?.begin(1, Operation.writeZeroes, 8, 512, 0);
  facts.queues[0]?.begin(2, Operation.read, 8, 512, 0);
  facts.queues[0]?.end(2, true, 1);
  expect(ask(facts, "queues")).toBe('{"queues":[[]]}\n');
});

test("stats: exactly five keys a queue, counted when a request begins", () => {
  const facts = makeFacts(2);
  facts.queues[1]?.begin(0, Operation.read, 0, 4096, 0);
  facts.queues[1]?.begin(1, Operation.write, 0, 512, 0);
  facts.queues[1]?.begin(2, Operation.flush, 0, 0, 0);
  facts.queues[1]?.begin(3, Operation.discard, 0, 512, 0);
  facts.queues[1]?.end(1, false, 1);
  expect(ask(facts, "stats")).toBe(
    '{"stats":{"queues":[' +
      '{"bytes_read":0,"bytes_written":0,"flush_ops":0,"read_ops":0,"write_ops":0},' +
      '{"bytes_read":4096,"bytes_written":512,"flush_ops":1,"read_ops":1,"write_ops":1}]}}\n',
  );
});

test("statistics: all counters, latencies and the age of the oldest request", () => {
  const facts = makeFacts(1);
  const queue = facts.queues[0];
  queue?.begin(0, Operation.read, 0, 512, 100);
  queue?.end(0, true, 1100);
  queue?.begin(0, Operation.discard, 0, 512, NOW_NS - 70);
  queue?.begin(1, Operation.writeZeroes, 0, 512, NOW_NS - 50);
  queue?.count(Counter.kicks, 3);
  queue?.count(Counter.calls, 2);
  queue?.count(Counter.badChains, 1);
  queue?.setStopped(true);
  const limitNs = bucketLimitNs(bucketOf(1000));
  expect(ask(facts, "statistics")).toBe(
    '{"statistics":{"queues":[{"bad_chains":1,"bytes_read":512,"bytes_written":0,"calls":2,' +
      '"completed":1,"discard_ops":1,"failed":0,"flush_ops":0,"in_flight":2,"kicks":3,' +
      '"latency":{"flush":{"count":0,"p50_ns":null,"p99_ns":null,"sum_ns":0},' +
      `"read":{"count":1,"p50_ns":${limitNs},"p99_ns":${limitNs},"sum_ns":1000},` +
      '"write":{"count":0,"p50_ns":null,"p99_ns":null,"sum_ns":0}},' +
      '"oldest_in_flight_ns":70,"overdue":0,"read_ops":1,"stopped":1,"write_ops":0,"write_zeroes_ops":1}]}}\n',
  );
});

test("statistics of an idle queue: no oldest request", () => {
  expect(ask(makeFacts(1), "statistics")).toContain('"oldest_in_flight_ns":null,');
});

test("limits: what is set with its bursts, and by queue what waited for them", () => {
  const facts = makeFacts(1);
  facts.queues[0]?.count(Counter.writesThrottled, 3);
  facts.queues[0]?.count(Counter.writeThrottledNs, 4_000.6);
  const set =
    '{"command":"set_limits","iops":1000,"write_bytes_per_second":8192,"write_bytes_burst":65536}';
  answerLine(facts, set);
  expect(ask(facts, "limits")).toBe(
    '{"limits":{"bytes_burst":null,"bytes_per_second":null,"iops":1000,"iops_burst":100,' +
      '"queues":[{"read_throttled_ns":0,"reads_throttled":0,"write_throttled_ns":4001,"writes_throttled":3}],' +
      '"read_bytes_burst":null,"read_bytes_per_second":null,"read_iops":null,"read_iops_burst":null,' +
      '"write_bytes_burst":65536,"write_bytes_per_second":8192,"write_iops":null,"write_iops_burst":null}}\n',
  );
});

test("set_limits: what is not named stays, null lifts, and a burst goes with its limit", () => {
  const facts = makeFacts(1);
  const limitsAfter = (members: string): unknown =>
    JSON.parse(answerLine(facts, `{"command":"set_limits"${members}}`)).limits;
  expect(limitsAfter(',"iops":100,"iops_burst":500,"read_iops":50')).toMatchObject({
    iops: 100,
    iops_burst: 500,
    read_iops: 50,
    read_iops_burst: 5,
  });
  expect(limitsAfter(',"iops":200')).toMatchObject({ iops: 200, iops_burst: 500, read_iops: 50 });
  expect(limitsAfter(',"iops_burst":null')).toMatchObject({ iops: 200, iops_burst: 20 });
  expect(limitsAfter(',"iops":null')).toMatchObject({
    iops: null,
    iops_burst: null,
    read_iops: 50,
  });
  expect(limitsAfter("")).toMatchObject({ iops: null, read_iops: 50 });
});

test.each([
  [',"iops":0', "`iops` must be a whole number of 1 or more, or null for none"],
  [',"iops":1.5', "`iops` must be a whole number of 1 or more, or null for none"],
  [',"iops":"100"', "`iops` must be a whole number of 1 or more, or null for none"],
  [',"iops":1e300', "`iops` must be a whole number of 1 or more, or null for none"],
  [',"write_iops":10,"iops":-1', "`iops` must be a whole number of 1 or more, or null for none"],
  [',"bytes_per_second":100', "`bytes_per_second` must be a whole number of 4096 or more"],
  [',"write_iop":100', "`write_iop` is no limit; did you mean `write_iops`?"],
  [',"write_iops":100,"id":7', "`id` is no limit; there are iops, iops_burst, read_iops"],
  [',"iops_burst":10', "`iops_burst`: has no effect without `iops`"],
  [',"iops":null,"iops_burst":10', "`iops_burst`: has no effect without `iops`"],
  [
    ',"iops":100000,"iops_burst":99',
    "`iops_burst`: 99 is less than `iops` gives in a millisecond; at least 100 is accepted",
  ],
])("set_limits with %s: refused, and nothing changes", (members, error) => {
  const facts = makeFacts(1);
  const answer = answerLine(facts, `{"command":"set_limits"${members}}`);
  expect(JSON.parse(answer)).toMatchObject({ code: "E_RPC_REQUEST" });
  expect(answer).toContain(`"error":"invalid request: ${error}`);
  expect(facts.limits.settings.filter(({ perSecond }) => perSecond !== undefined)).toEqual([]);
});

test("histograms: limits and counts of the buckets that are not empty", () => {
  const facts = makeFacts(1);
  for (const latencyNs of [5, 5, 100]) {
    facts.queues[0]?.begin(0, Operation.write, 0, 512, 0);
    facts.queues[0]?.end(0, true, latencyNs);
  }
  expect(ask(facts, "histograms")).toBe(
    '{"histograms":{"queues":[{"flush":[],"read":[],"write":[[6,2],[104,1]]}]}}\n',
  );
});

test("requests: every operation, the oldest first, with its age", () => {
  const facts = makeFacts(1);
  facts.queues[0]?.begin(0, Operation.discard, 8, 1024, NOW_NS - 10);
  facts.queues[0]?.begin(1, Operation.flush, 0, 0, NOW_NS - 20);
  facts.queues[0]?.begin(2, Operation.read, 16, 512, NOW_NS + 5); // began after the clock was read
  expect(ask(facts, "requests")).toBe(
    '{"requests":{"queues":[[{"age_ns":20,"operation":"flush"},' +
      '{"age_ns":10,"operation":"discard","sector":8,"sectors":2},' +
      '{"age_ns":0,"operation":"read","sector":16,"sectors":1}]]}}\n',
  );
});

test("requests: no more of a queue than the limit, and these are the oldest", () => {
  const slots = REQUESTS_LISTED_MAX + 100;
  const queue = makeQueue(slots);
  for (let slot = 0; slot < slots; slot++) {
    queue.begin(slot, Operation.read, slot, 512, NOW_NS - slot);
  }
  const answer = ask({ ...makeFacts(0), queues: [queue] }, "requests");
  expect(answer.match(/age_ns/g)).toHaveLength(REQUESTS_LISTED_MAX);
  expect(answer).toContain(`"age_ns":${slots - 1},`);
  expect(answer).not.toContain('"age_ns":99,');
});

test.each([
  { line: '{"command":"nope"}', error: "unknown command: nope", code: "E_RPC_COMMAND" },
  { line: '{"command":""}', error: "unknown command: ", code: "E_RPC_COMMAND" },
  { line: '{"command":"toString"}', error: "unknown command: toString", code: "E_RPC_COMMAND" },
  { line: '["stat"]', error: "unknown command: stat", code: "E_RPC_COMMAND" },
])("unknown command $line: exactly a code and the text", ({ line, error, code }) => {
  expect(answerLine(makeFacts(0), line)).toBe(`${JSON.stringify({ code, error })}\n`);
});

test.each([
  "{ not valid json }",
  "{}",
  "[]",
  "null",
  "7",
  '"version"',
  "[1]",
  '["version","x"]',
  '{"command":1}',
  '{"command":null}',
  '{"command":["version"]}',
  '{"Command":"version"}',
  '{"__proto__":{"command":"version"}}',
  '{"command":"version"} {}',
  "\u{feff}\u{feff}{",
  "[".repeat(60_000),
  `${"[".repeat(30_000)}${"]".repeat(30_000)}`,
])("invalid request %#: an error of one line with that prefix", (line) => {
  const answer = answerLine(makeFacts(0), line);
  expect(answer).toStartWith('{"code":"E_RPC_REQUEST","error":"invalid request: ');
  expect(answer.indexOf("\n")).toBe(answer.length - 1);
});

test.each(['{"command":"version","id":7}', '{"x":{},"command":"version"}', '["version"]'])(
  "%s: other members are ignored, an array of one is read",
  (line) => {
    expect(answerLine(makeFacts(0), line)).toBe('{"version":"1.2.3"}\n');
  },
);

test("any line: one line of JSON, an object whose keys are sorted on every level", () => {
  const facts = makeFacts(2);
  facts.queues[1]?.begin(0, Operation.read, 0, 512, 0);
  const commands = [
    "version",
    "status",
    "queues",
    "stats",
    "statistics",
    "histograms",
    "requests",
    "overdue",
    "limits",
    "set_limits",
  ];
  const someLine = fc.oneof(
    fc.string({ unit: "binary", maxLength: 200 }),
    fc.json(),
    fc.string({ unit: "binary" }).map((command) => JSON.stringify({ command })),
    fc.constantFrom(...commands).map((command) => JSON.stringify({ command })),
  );
  fc.assert(
    fc.property(someLine, (line) => {
      const answer = answerLine(facts, line);
      expect(answer.indexOf("\n")).toBe(answer.length - 1);
      expect(isSorted(JSON.parse(answer))).toBe(true);
    }),
    { numRuns: 1000 },
  );
});

// --- internal ---

const NOW_NS = 1_000_000;
const SLOTS = 8;

class FakeFetch {
  readonly asked: string[] = [];
  #isPaused = false;
  #limit = Number.POSITIVE_INFINITY;

  get facts(): FetchFacts {
    return {
      stripeBytes: 2 ** 20,
      unfetched: 14,
      written: 4,
      inFlight: 2,
      demandFetches: 6,
      backgroundFetches: 5,
      aheadFetches: 9,
      zeroStripes: 8,
      retries: 3,
      sourceBytes: 3 * 2 ** 20,
      failures: 11,
      failed: 1,
      failedStripes: [7],
      bytesPerSecond: 1000,
      etaSeconds: undefined,
      isPaused: this.#isPaused,
      limitBytesPerSecond: this.#limit,
      sourceState: "open",
    };
  }

  pause(): void {
    this.asked.push("pause");
    this.#isPaused = true;
  }

  resume(): void {
    this.asked.push("resume");
    this.#isPaused = false;
  }

  limit(bytesPerSecond: number): void {
    this.asked.push(`limit ${bytesPerSecond}`);
    this.#limit = bytesPerSecond;
  }

  retryFailed(): void {
    this.asked.push("retry");
  }
}

function makeFacts(count: number): RpcFacts {
  const queues = Array.from({ length: count }, () => makeQueue(SLOTS));
  return {
    version: "1.2.3",
    queues,
    limits: new DiskLimits(NO_LIMITS, queues),
    overdue: new OverdueRequests({ thresholdMs: 0, queues, waits: [], progress: () => undefined }),
    stripes: () => undefined,
    fetch: () => undefined,
    control: CONTROL,
    nowNs: () => NOW_NS,
  };
}

function makeQueue(slots: number): QueueStatistics {
  return new QueueStatistics(new SharedArrayBuffer(QueueStatistics.sharedBytes(slots)), slots);
}

function ask(facts: RpcFacts, command: string): string {
  return answerLine(facts, JSON.stringify({ command }));
}

function isSorted(value: unknown): boolean {
  if (typeof value !== "object" || value === null) {
    return true;
  }
  const keys = Object.keys(value);
  const inOrder = Array.isArray(value) || keys.join() === [...keys].sort().join();
  return inOrder && Object.values(value).every(isSorted);
}
