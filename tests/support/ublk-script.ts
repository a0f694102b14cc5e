/** Tests whose body is a script in a ublk guest, and the shell functions by which they use a backend. */
import { expect } from "bun:test";
import { valuesOf } from "./guest.ts";
import type { GuestResult } from "./guest-boot.ts";
import { skipUnless } from "./requires.ts";
import { UblkDisk, type UblkDiskOptions } from "./ublk-disk.ts";
import {
  missingForUblkGuest,
  runUblkGuest,
  type UblkGuestOptions,
  type UblkSuite,
} from "./ublk-guest.ts";

const TEST_MS = 600_000;
const SHARED_TEST_MS = 900_000;

/** A test that is skipped where such a guest cannot be had. */
export function testIn(
  suite: UblkSuite,
  name: string,
  body: () => Promise<void>,
  timeoutMs = TEST_MS,
): void {
  const missing = missingForUblkGuest(suite);
  skipUnless(missing ?? "", missing === undefined)(`${suite}: ${name}`, body, timeoutMs);
}

export interface GuestPart {
  readonly name: string;
  readonly script: string;
  /** What it printed besides ending well. */
  readonly check?: (values: Readonly<Record<string, string>>) => void;
}

/**
 * A test for each part, all in one guest with one disk, since a boot takes longer than most of them. They run in their
 * order, each in a shell of its own; what one leaves behind, the next one finds.
 */
export function testsInOneGuest(options: {
  readonly suite: UblkSuite;
  readonly disk: UblkDiskOptions;
  readonly parts: readonly GuestPart[];
}): void {
  const { suite, parts } = options;
  const script = parts.map((part, i) => scriptOfPart(part, i)).join("\n");
  let running: Promise<GuestResult> | undefined;
  const run = async () => {
    using disk = await UblkDisk.make(options.disk);
    const timeoutMs = SHARED_TEST_MS - 20_000;
    return await runUblkGuest({ suite, script, dataDisk: disk.path, timeoutMs });
  };
  for (const [i, { name, check }] of parts.entries()) {
    const body = async () => {
      running ??= run();
      const result = await running;
      const printed = outputOfPart(result.output, i);
      const isGood = /^part-exit=0$/m.test(printed);
      expect(isGood ? "" : `${result.console}\n${printed}`).toBe("");
      expect(result.console).not.toMatch(KERNEL_TROUBLE);
      check?.(valuesOf({ output: printed }));
    };
    testIn(suite, name, body, SHARED_TEST_MS);
  }
}

const KERNEL_TROUBLE = /EXT4-fs error|Call Trace|blocked for more than/;

/** Runs a script that must end well; what the guest said is shown when it does not. */
export async function succeeds(options: UblkGuestOptions): Promise<GuestResult> {
  const script = withFunctions(options.script);
  const result = await runUblkGuest({ ...options, script });
  const story = `${result.console}\n${result.output}`;
  expect(result.exitCode === 0 ? "" : story).toBe("");
  expect(result.console).not.toMatch(KERNEL_TROUBLE);
  return result;
}

export function withFunctions(script: string): string {
  return `${FUNCTIONS}\n${script}`;
}

// --- internal ---

/** A list of commands with `||` behind it would go on after one that fails: hence the code is asked for by itself. */
function scriptOfPart({ script }: GuestPart, index: number): string {
  return `
echo part-${index}
set +e
(
set -eu
${withFunctions(script)}
)
echo "part-exit=$?"
set -e
`;
}

function outputOfPart(output: string, index: number): string {
  const [, behind = ""] = output.split(`part-${index}\n`);
  return behind.split(/^part-\d+$/m)[0] ?? "";
}

/**
 *   launch FLAGS...  starts a backend
 *   begin FLAGS...   starts a backend, and waits until its link leads to a block device
 *   end              asks it to end; nothing of it may be left
 *   device           prints the name of the block device behind the link, such as ublkb0
 *   starts           how often the log tells that a backend is ready
 *   await CONDITION  waits until a shell command succeeds, 30 s at most
 *   left             device nodes, processes and the link that are there
 *   fails CMD...     the command must not succeed
 *   refuses CMD...   the same, and what it complains of goes to /tmp/refusal
 *   within S CMD...  the command must end within S seconds, well or not; prints its exit code
 *
 * A script that fails shows the backend's log and the kernel's last words.
 */
const FUNCTIONS = `
cd /tmp
link=/run/ubiblk/disk
backend=
: >/tmp/log
explain() {
  code=$?
  [ $code = 0 ] || { echo "--- log"; cat /tmp/log; echo "--- kernel"; dmesg | tail -n 20; }
}
trap explain EXIT
await() {
  for try in $(seq 300); do
    if eval "$1"; then return 0; fi
    sleep 0.1
  done
  echo "in vain: $1"
  return 1
}
launch() {
  ubiblk ublk --config /data/disk.toml --device-symlink $link "$@" >>/tmp/log 2>&1 &
  backend=$!
}
begin() {
  before=$(starts)
  launch "$@"
  await '[ $(starts) -gt $before ] || ! kill -0 $backend 2>/dev/null'
  [ $(starts) -gt $before ] && [ -b $link ]
}
device() {
  basename $(readlink $link)
}
starts() {
  grep -c 'INFO . ready' /tmp/log || true
}
left() {
  find /dev -name 'ublkb*' -o -name 'ublkc*'
  find $(dirname $link) -name $(basename $link) 2>/dev/null || true
  pidof ubiblk || true
}
end() {
  kill -TERM $backend
  wait $backend
  [ -z "$(left)" ] || { echo "left: $(left)"; return 1; }
}
fails() {
  if "$@"; then
    echo "did not fail: $*"
    return 1
  fi
}
refuses() {
  fails "$@" 2>/tmp/refusal
  cat /tmp/refusal
}
within() {
  seconds=$1
  shift
  code=0
  timeout -s KILL $seconds "$@" 2>/dev/null || code=$?
  [ $code != 137 ] || { echo "not within $seconds s: $*" >&2; exit 1; }
  echo $code
}
`;
