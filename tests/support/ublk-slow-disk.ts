/** For scripts in a ublk guest: the time, and disks on device mapper, which can be made slow. */

/** What `now` counts in: /proc/uptime has hundredths. */
export const SECOND = 100;

/** `now` prints the time of the guest; no program has to be started for it. */
export const NOW = `
now() {
  read -r up idle </proc/uptime
  echo \${up%.*}\${up#*.}
}
`;

/** The disk's file is loop0; `diskIs PATH` says where the disk's data lies. */
export const ON_MAPPER = `
export DM_DISABLE_UDEV=1
losetup --direct-io=on /dev/loop0 /data/disk.raw
diskIs() {
  sed -i "s#^data_path = .*#data_path = \\"$1\\"#" /data/disk.toml
}
`;

/** `become MS` makes the disk slow, which it is not at first; behind MS, arguments for its writes and flushes. */
export const ON_SLOW_DISK = `
${ON_MAPPER}
table() { echo "0 $(blockdev --getsz /dev/loop0) delay /dev/loop0 0 $1"; }
become() {
  dmsetup suspend --nolockfs slow
  table "$1" | dmsetup load slow
  dmsetup resume slow
}
table 0 | dmsetup create slow
diskIs /dev/mapper/slow
`;
