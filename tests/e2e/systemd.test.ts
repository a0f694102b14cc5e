/** The units, and the commands of docs/operations.md and docs/init.md, under systemd itself. */
import { expect } from "bun:test";
import { readFileSync } from "node:fs";
import { commandsOf } from "../support/document-commands.ts";
import { isInstalled, skipUnless } from "../support/requires.ts";
import { missingSystemd, runInSystemd } from "../support/systemd-world.ts";

const missing = missingSystemd();
const test = skipUnless(missing ?? "", missing === undefined);
const TEST_MS = 120_000;

const MANUAL = "docs/operations.md";
const SET_UP = `${commandsOf(MANUAL, "Running it as a service")}${commandsOf(MANUAL, "One disk")}`;
const SERVICE = "ubiblk-vhost@disk1.service";

/** \`property NAME\` prints one of the service, \`journal\` what it told, \`await COMMAND...\` waits 20 s at most. */
const FUNCTIONS = `
property() { systemctl show -P "$1" ${SERVICE}; }
journal() { journalctl --sync; journalctl --no-pager -o cat "$@" -u ${SERVICE}; }
await() {
  for try in $(seq 200); do if "$@"; then return 0; fi; sleep 0.1; done
  echo "in vain: $*"; return 1
}
`;

test(
  "a disk as the manual sets it up: ready, under its user, with its key, and every byte is right",
  async () => {
    await succeeds(`${SET_UP}
      [ "$(property ActiveState)/$(property Type)" = active/notify ]
      property StatusText | grep -x 'serving /var/lib/ubiblk/disk1/disk.raw at /run/ubiblk/disk1/vhost.sock'
      status=/proc/$(property MainPID)/status
      grep -q "^Uid:.$(id -u ubiblk).$(id -u ubiblk)." $status
      grep -q '^CapEff:.0000000000000000' $status
      grep -q '^Seccomp:.2' $status
      [ "$(stat -c %a:%U:%G /run/ubiblk/disk1/vhost.sock)" = 660:ubiblk:kvm ]
      truncate -s 8M /var/lib/ubiblk/disk1/disk.raw
      # What would lead the runtime elsewhere must not reach it.
      systemctl set-environment BUN_BE_BUN=1 BUN_OPTIONS=--version LD_PRELOAD=/missing.so
      systemctl restart ${SERVICE}
      ! tr '\\0' '\\n' < /proc/$(property MainPID)/environ | grep -E '^(BUN_|LD_)'
      ubiblk bench --socket=/run/ubiblk/disk1/vhost.sock --workload=verify
      journal -p info | grep -q '^ready socket=/run/ubiblk/disk1/vhost.sock .*cipher='
      [ -z "$(journal -p warning)" ]
      ${commandsOf(MANUAL, "Watching")}
      ${commandsOf(MANUAL, "Logs")}
      systemctl stop ${SERVICE}
      [ "$(property Result)/$(property ExecMainStatus)" = success/0 ]
      [ ! -e /run/ubiblk/disk1 ]
    `);
  },
  TEST_MS,
);

/** The command of the manual that runs a tool with the credential of a service. */
const [, DOCTOR = "false"] =
  /^ *`(systemd-run .* ubiblk doctor [^`]*)`$/m.exec(readFileSync(MANUAL, "utf8")) ?? [];

skipUnless(missing ?? "no D-Bus", missing === undefined && isInstalled("dbus-daemon"))(
  "doctor with the key of a service, as the manual runs it: nothing is wrong while it serves and when it is stopped",
  async () => {
    await succeeds(`${SET_UP}
      truncate -s 8M /var/lib/ubiblk/disk1/disk.raw
      systemctl restart ${SERVICE}
      systemctl start dbus.service
      ${DOCTOR} | tee /tmp/served
      grep -E '^ +ok +answer +version' /tmp/served
      systemctl stop ${SERVICE}
      ${DOCTOR} | tee /tmp/stopped
      grep -E '^ +warn +folder +/run/ubiblk/disk1 is not there: nobody serves here now' /tmp/stopped
    `);
  },
  TEST_MS,
);

test(
  "the watchdog ends a process that stands still; a socket of systemd starts the service, and outlives it",
  async () => {
    await succeeds(`${SET_UP}
      printf '[Service]\\nWatchdogSec=2\\n' > /etc/systemd/system/${SERVICE}.d/watchdog.conf
      systemctl daemon-reload
      systemctl restart ${SERVICE}
      process=$(property MainPID)
      sleep 3
      [ "$(property MainPID)/$(property NRestarts)" = $process/0 ]
      [ "$process" -gt 1 ]
      kill -STOP $process
      is_restarted() { [ "$(property NRestarts)/$(property ActiveState)" = 1/active ]; }
      await is_restarted
      [ "$(property MainPID)" != $process ]
      ubiblk bench --socket=/run/ubiblk/disk1/vhost.sock --time=0.1 --warmup=0

      ${commandsOf(MANUAL, "Sockets that systemd opens")}
      socket=/run/ubiblk-vhost/disk1.sock
      [ "$(stat -c %a:%U:%G $socket)" = 660:root:kvm ]
      [ "$(property ActiveState)" = inactive ]
      ubiblk bench --socket=$socket --time=0.1 --warmup=0
      [ "$(property ActiveState)" = active ]
      inode=$(stat -c %i $socket)
      systemctl restart ${SERVICE}
      [ "$(stat -c %i $socket)" = $inode ]
      ubiblk bench --socket=$socket --time=0.1 --warmup=0
      journal | grep -q "^front end connected socket=$socket"
    `);
  },
  TEST_MS,
);

test(
  "a reload hands the disk to the program that is installed by now: the service stays, watched as before",
  async () => {
    await succeeds(`${SET_UP}
      printf '[Service]\\nWatchdogSec=2\\n' > /etc/systemd/system/${SERVICE}.d/watchdog.conf
      systemctl daemon-reload
      systemctl restart ${SERVICE}
      truncate -s 8M /var/lib/ubiblk/disk1/disk.raw
      systemctl restart ${SERVICE}
      process=$(property MainPID)
      exchange() { cp /usr/bin/ubiblk /usr/bin/ubiblk.new; mv /usr/bin/ubiblk.new /usr/bin/ubiblk; }
      is_upgraded() { [ "$(property MainPID)" != $process ] && [ ! -e /proc/$process ]; }
      exchange
      systemctl reload ${SERVICE}
      await is_upgraded
      cmp /proc/$(property MainPID)/exe /usr/bin/ubiblk
      await eval 'property StatusText | grep -x "serving /var/lib/ubiblk/disk1/disk.raw at /run/ubiblk/disk1/vhost.sock"'
      sleep 4 # two times what the watchdog allows
      [ "$(property ActiveState)/$(property NRestarts)" = active/0 ]
      ubiblk bench --socket=/run/ubiblk/disk1/vhost.sock --workload=verify
      [ -z "$(journal -p warning)" ]

      # What fails leaves the service as it is, and says so.
      process=$(property MainPID)
      chmod g+w /usr/bin/ubiblk
      systemctl reload ${SERVICE}
      await eval 'journal -p err | grep -q "upgrade failed: the disk is served as before"'
      chmod g-w /usr/bin/ubiblk
      [ "$(property MainPID)" = $process ]

      # The manager hears of the end of a process that it did not start.
      kill -KILL $process
      is_restarted() { [ "$(property NRestarts)/$(property ActiveState)" = 1/active ]; }
      await is_restarted
      ubiblk bench --socket=/run/ubiblk/disk1/vhost.sock --time=0.1 --warmup=0
      systemctl stop ${SERVICE}
      [ "$(property Result)/$(property ExecMainStatus)" = success/0 ]
      [ ! -e /run/ubiblk/disk1 ]

      ${commandsOf(MANUAL, "Sockets that systemd opens")}
      socket=/run/ubiblk-vhost/disk1.sock
      ubiblk bench --socket=$socket --time=0.1 --warmup=0
      process=$(property MainPID)
      inode=$(stat -c %i $socket)
      systemctl reload ${SERVICE}
      await is_upgraded
      [ "$(stat -c %i $socket)" = $inode ]
      ubiblk bench --socket=$socket --workload=verify
      systemctl stop ${SERVICE}
      [ "$(stat -c %i $socket)" = $inode ]
    `);
  },
  TEST_MS,
);

test(
  "a disk as init.md sets it up, with one KEK for the host: served, and open to the group of QEMU",
  async () => {
    const disk = commandsOf("docs/init.md", "On a host with systemd").replace("20G", "16M");
    await succeeds(`${commandsOf(MANUAL, "Running it as a service")}${disk}
      [ "$(property ActiveState)" = active ]
      [ "$(stat -c %a:%U:%G /run/ubiblk/disk1/vhost.sock)" = 660:ubiblk:kvm ]
      ubiblk bench --socket=/run/ubiblk/disk1/vhost.sock --workload=verify
      ubiblk metrics --config /etc/ubiblk/disk1.toml | grep -q 'ubiblk_up{device="disk1"'
      [ -z "$(journal -p warning)" ]
    `);
  },
  TEST_MS,
);

// --- internal ---

async function succeeds(script: string): Promise<void> {
  const { exitCode, output } = await runInSystemd(`${FUNCTIONS}${script}`);
  expect(exitCode === 0 ? "" : output).toBe("");
}
