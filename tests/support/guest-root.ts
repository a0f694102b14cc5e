/** A guest whose root file system is on the disk that is tested: what it does at its first and second boot. */
import { expect } from "bun:test";
import { type GuestOptions, type GuestResult, runGuest } from "./guest.ts";

/** From here on nothing but what is on the disk is run. */
const ENTER_ROOT = `
mount -t ext4 /dev/vda /mnt
mount -t proc proc /mnt/proc
mount -t devtmpfs devtmpfs /mnt/dev
`;
const LEAVE_ROOT = `
umount /mnt/proc /mnt/dev /mnt
e2fsck -fn /dev/vda
`;

/** Checks what is there, and writes. */
export const FIRST_BOOT = `${ENTER_ROOT}
cat >/mnt/first <<'END'
/bin/busybox --install -s /bin
export PATH=/bin
cd /
sha256sum -c -s sums
echo "sums=$(sha256sum <sums)"
mkdir new
for i in $(seq 60); do head -c $((i * 3001)) /dev/urandom >new/$i; done
dd if=/dev/urandom of=new/large bs=64k count=50 2>/dev/null
sync
find new -type f | sort | xargs sha256sum >newsums
sync
echo "newsums=$(sha256sum <newsums)"
END
chroot /mnt /bin/sh -eu /first
${LEAVE_ROOT}`;

/** Checks what was there, and what the first boot wrote. */
export const SECOND_BOOT = `
e2fsck -fn /dev/vda
${ENTER_ROOT}
cat >/mnt/second <<'END'
export PATH=/bin
cd /
sha256sum -c -s sums
sha256sum -c -s newsums
echo "files=$(wc -l <newsums)"
echo "sums=$(sha256sum <sums)"
echo "newsums=$(sha256sum <newsums)"
END
chroot /mnt /bin/sh -eu /second
${LEAVE_ROOT}`;

/** Runs a script that must end well; what the guest said is shown when it does not. */
export async function succeeds(options: GuestOptions): Promise<GuestResult> {
  const result = await runGuest(options);
  const story = `${result.console}\n${result.output}`;
  expect(result.exitCode === 0 ? "" : story).toBe("");
  expect(result.console).not.toMatch(/I\/O error|EXT4-fs error|Call Trace|blk_update_request/);
  return result;
}
