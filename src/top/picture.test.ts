/** The picture at several sizes, as text. */
import { expect, test } from "bun:test";
import type { DiskView } from "./disk-watcher.ts";
import type { Histogram } from "./histogram.ts";
import {
  helpPicture,
  type Picture,
  type ScreenSize,
  type SortOrder,
  screenPicture,
  wholePicture,
} from "./picture.ts";
import type { LoadSample } from "./sample.ts";
import { lineText } from "./styled-line.ts";

const MIB = 2 ** 20;

test("80x24: two disks, one with a fetch, one that does not answer", () => {
  expect(screen({ columns: 80, rows: 24 })).toMatchInlineSnapshot(`
    "
    ubiblk top  2 disks, 2 queues  every 1s  12:34:56
    queue   iops   read/s  write/s rd p50 rd p99 wr p50 wr p99 inflight
    /run/a.rpc  0.6.0  restarted 7s ago  3 failed/s
        0    100  100 MiB      0 B  590us 3.15ms      -      -       31
        1  12.4k 2.00 KiB 48.2 MiB 98.3us 98.3us 12.3us 23.1ms        4
      all  12.5k  100 MiB 48.2 MiB  590us 3.15ms 12.3us 23.1ms       35
    fetch [#.................]   7.3%  265/3584 stripes  12/s  12.3 MiB/s  ETA 4m29s
    fetch failed for 3 stripes: 17, 18, 400

    /run/b.rpc  0.6.0  stuck for 12s: no answer in time












    total  12.5k  100 MiB 48.2 MiB  590us 3.15ms 12.3us 23.1ms       35
    q quit  p pause  s sort  h help
    "
  `);
});

test("100 columns: operations by kind as well", () => {
  expect(screen({ columns: 100, rows: 16 })).toMatchInlineSnapshot(`
    "
    ubiblk top  2 disks, 2 queues  every 1s  12:34:56
    queue   iops rd iops wr iops fl iops   read/s  write/s rd p50 rd p99 wr p50 wr p99 inflight
    /run/a.rpc  0.6.0  restarted 7s ago  3 failed/s
        0    100     100       0       0  100 MiB      0 B  590us 3.15ms      -      -       31
        1  12.4k     0.5   12.3k      20 2.00 KiB 48.2 MiB 98.3us 98.3us 12.3us 23.1ms        4
      all  12.5k     101   12.3k      20  100 MiB 48.2 MiB  590us 3.15ms 12.3us 23.1ms       35
    fetch [##....................................]   7.3%  265/3584 stripes  12/s  12.3 MiB/s  ETA 4m29s
    fetch failed for 3 stripes: 17, 18, 400

    /run/b.rpc  0.6.0  stuck for 12s: no answer in time




    total  12.5k     101   12.3k      20  100 MiB 48.2 MiB  590us 3.15ms 12.3us 23.1ms       35
    q quit  p pause  s sort  h help
    "
  `);
});

test("160x50: all that fits, with a bar", () => {
  expect(screen({ columns: 160, rows: 50 })).toMatchInlineSnapshot(`
    "
    ubiblk top  2 disks, 2 queues  every 1s  12:34:56
    queue   iops rd iops wr iops fl iops   read/s  write/s avg size rd p50 rd p99 wr p50 wr p99 fl p50 fl p99 inflight oldest failed/s = read  # write
    /run/a.rpc  0.6.0  restarted 7s ago  3 failed/s
        0    100     100       0       0  100 MiB      0 B 1.00 MiB  590us 3.15ms      -      -      -      -       31 18.3ms        0 ====================
        1  12.4k     0.5   12.3k      20 2.00 KiB 48.2 MiB 4.00 KiB 98.3us 98.3us 12.3us 23.1ms 1.05ms 1.05ms        4      -        3 #########
      all  12.5k     101   12.3k      20  100 MiB 48.2 MiB 12.2 KiB  590us 3.15ms 12.3us 23.1ms 1.05ms 1.05ms       35 18.3ms        3 ====================#########
    fetch [##......................................]   7.3%  265/3584 stripes  12/s  12.3 MiB/s  ETA 4m29s
    fetch failed for 3 stripes: 17, 18, 400

    /run/b.rpc  0.6.0  stuck for 12s: no answer in time






































    total  12.5k     101   12.3k      20  100 MiB 48.2 MiB 12.2 KiB  590us 3.15ms 12.3us 23.1ms 1.05ms 1.05ms       35 18.3ms        3
    q quit  p pause  s sort  h help
    "
  `);
});

test("wider still: more counters, never a line that is too long", () => {
  const lines = wholePicture(picture(), 250).map((line) => text(line, 250));
  expect(lines[1]).toContain("kicks/s calls/s");
  expect(lines[1]).toContain("written");
});

test.each([1, 2, 10, 40, 79, 80, 81, 99, 100, 133, 160, 200, 300])(
  "%d columns: no line is longer",
  (columns) => {
    for (const rows of [1, 2, 3, 5, 24]) {
      const { lines } = screenPicture(picture(), { columns, rows }, 0);
      expect(lines.length).toBeLessThanOrEqual(rows);
      expect(Math.max(...lines.map((line) => text(line, columns).length))).toBeLessThanOrEqual(
        columns,
      );
    }
  },
);

test("few rows: what does not fit is told, and scrolled to", () => {
  const size = { columns: 80, rows: 9 };
  const top = screenPicture(picture(), size, 0);
  expect(top.scrollMax).toBe(4);
  expect(text(top.lines.at(-1) ?? [], 80)).toContain("4 lines more");
  const bottom = screenPicture(picture(), size, 99).lines.map((line) => text(line, 80));
  expect(bottom[5]).toStartWith("/run/b.rpc  0.6.0  stuck");
  expect(bottom[6]).toBe("");
  expect(bottom[7]).toStartWith("total");
});

test("sockets without a disk: counted apart, and a long reason is whole, below them", () => {
  const reason = "a stripe server, which has no queues: ask its socket for stats and clients";
  const away = { state: "away", version: undefined, silentSeconds: 1.2 } as const;
  const disks = [
    disk({ queues: [READER] }),
    disk({ ...away, socket: "s.rpc", reason }),
    disk({ ...away, socket: "n.rpc", reason: "no socket there" }),
  ];
  const lines = wholePicture({ ...picture(), disks }, 80).map((line) => text(line, 80));
  expect(lines[0]).toStartWith("ubiblk top  1 disk, 1 queue, 2 other sockets  every 1s");
  expect(lines.slice(5, 9)).toEqual([
    "s.rpc  away for 1s",
    `  ${reason}`,
    "",
    "n.rpc  away for 1s: no socket there",
  ]);
  const narrow = wholePicture({ ...picture(), disks }, 40).map((line) => text(line, 40));
  expect(narrow.slice(5, 8)).toEqual([
    "s.rpc  away for 1s",
    "  a stripe server, which has no queues:",
    "  ask its socket for stats and clients",
  ]);
});

test("limits: those that are set, and how much the queue that waits most is held back", () => {
  const waiting = { read_throttled_ns: 2e8, write_throttled_ns: 5.3e8 };
  const queues = [READER, { ...WRITER, rates: { ...WRITER.rates, ...waiting } }];
  const limits = { iops: 12_000, write_bytes_per_second: 100 * MIB };
  const lines = wholePicture({ ...picture(), disks: [disk({ queues, limits })] }, 80);
  expect(text(lines[6] ?? [], 80)).toBe(
    "limits 12.0k iops  write 100 MiB/s  throttled 73% of the time",
  );
});

test("limits that hold nothing back: told without it", () => {
  const disks = [disk({ queues: [READER], limits: { read_iops: 500 } })];
  const lines = wholePicture({ ...picture(), disks }, 80);
  expect(text(lines[4] ?? [], 80)).toBe("limits 500 rd iops");
});

test("a request that is in flight for long: told beside the socket at any width", () => {
  const queues = [{ ...READER, oldestInFlightNs: 7.2e9 }];
  const lines = wholePicture({ ...picture(), disks: [disk({ queues })] }, 80);
  expect(text(lines[2] ?? [], 80)).toBe("/run/disk.rpc  0.6.0  a request takes 7.20s");
});

test("a queue that is left alone: told beside the socket", () => {
  const queues = [READER, { ...READER, stopped: 1 }];
  const lines = wholePicture({ ...picture(), disks: [disk({ queues })] }, 80);
  expect(text(lines[2] ?? [], 80)).toBe("/run/disk.rpc  0.6.0  1 queue stopped");
});

test.each<[SortOrder, readonly string[]]>([
  ["queue", ["0", "1"]],
  ["iops", ["1", "0"]],
  ["throughput", ["0", "1"]],
  ["latency", ["1", "0"]],
  ["in flight", ["0", "1"]],
])("sorted by %s: queues %j", (sort, expected) => {
  const lines = wholePicture({ ...picture(), sort }, 80).map((line) => text(line, 80));
  const names = lines.flatMap((line) => /^ {4}(\d) /.exec(line)?.[1] ?? []);
  expect(names.slice(0, 2)).toEqual([...expected]);
});

test("socket names and reasons: nothing in them reaches the terminal as a command", () => {
  const hostile = { ...picture(), disks: [disk({ socket: "a\x1b[2Jb\r\n" })] };
  expect(wholePicture(hostile, 80).map((line) => text(line, 80))).toContain("a?[2Jb??  0.6.0");
});

test("colour: only where it is wanted, and not counted as width", () => {
  const [title] = wholePicture(picture(), 80);
  expect(lineText(title ?? [], 6, { isColoured: true })).toBe("\x1b[1mubiblk\x1b[0m");
  expect(lineText(title ?? [], 6, { isColoured: false })).toBe("ubiblk");
});

test("help: fits a small terminal", () => {
  const { lines } = helpPicture(picture(), { columns: 80, rows: 24 });
  expect(Math.max(...lines.map((line) => text(line, 1000).length))).toBeLessThanOrEqual(80);
  expect(lines.length).toBeLessThanOrEqual(24);
});

// --- internal ---

function screen(size: ScreenSize): string {
  const { lines } = screenPicture(picture(), size, 0);
  return `\n${lines.map((line) => text(line, size.columns)).join("\n")}\n`;
}

function text(line: Parameters<typeof lineText>[0], columns: number): string {
  return lineText(line, columns, { isColoured: false });
}

function picture(): Picture {
  const fetch = {
    fetched: 265,
    source: 3584,
    total: 40_960,
    stripesPerSecond: 12.34,
    bytesPerSecond: 12.34 * MIB,
    etaSeconds: 268.9,
    failed: 3,
    failedStripes: [17, 18, 400],
  };
  const stuck = disk({ socket: "/run/b.rpc", state: "stuck", reason: "no answer in time" });
  return {
    disks: [
      disk({ socket: "/run/a.rpc", queues: [READER, WRITER], fetch, restartedSecondsAgo: 7 }),
      { ...stuck, silentSeconds: 12.3 },
    ],
    intervalSeconds: 1,
    clock: "12:34:56",
    sort: "queue",
    note: "",
  };
}

function disk(known: Partial<DiskView>): DiskView {
  return {
    socket: "/run/disk.rpc",
    state: "live",
    reason: undefined,
    silentSeconds: undefined,
    version: "0.6.0",
    restarts: 0,
    restartedSecondsAgo: undefined,
    ageSeconds: 0,
    intervalSeconds: 1,
    queues: [],
    fetch: undefined,
    limits: {},
    ...known,
  };
}

/** Few large reads. */
const READER: LoadSample = {
  totals: { bytes_read: 99 * MIB, bytes_written: 0 },
  rates: {
    read_ops: 100,
    write_ops: 0,
    flush_ops: 0,
    bytes_read: 100 * MIB,
    bytes_written: 0,
    failed: 0,
  },
  histograms: {
    read: histogram([589_824, 97], [3_145_728, 3]),
    write: histogram(),
    flush: histogram(),
  },
  inFlight: 31,
  oldestInFlightNs: 18_286_501,
  stopped: 0,
};

/** Many small writes, some of which fail. */
const WRITER: LoadSample = {
  totals: { bytes_read: 4096, bytes_written: 7 * MIB },
  rates: {
    read_ops: 0.5,
    write_ops: 12_345,
    flush_ops: 20,
    bytes_read: 2048,
    bytes_written: 48.2 * MIB,
    failed: 3,
  },
  histograms: {
    read: histogram([98_304, 1]),
    write: histogram([12_288, 90], [23_068_672, 10]),
    flush: histogram([1_048_576, 20]),
  },
  inFlight: 4,
  oldestInFlightNs: undefined,
  stopped: 0,
};

function histogram(...pairs: readonly (readonly [number, number])[]): Histogram {
  return new Map(pairs);
}
