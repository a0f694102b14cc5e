/** What the scripts of ublk guests have in common: shell functions that start, watch and end a backend. */

/**
 *   begin FLAGS...   starts a backend, and waits until its link leads to a block device
 *   end              asks it to end; nothing of it may be left
 *   await CONDITION  waits until a shell command succeeds, 30 s at most
 *   left             device nodes, processes and the link that are there
 *   within S CMD...  the command must end within S seconds, well or not; prints its exit code
 *
 * A script that fails shows the backend's log and the kernel's last words.
 */
export const UBLK_FUNCTIONS = `
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
  launch "$@"
  await "[ -b $link ] || ! kill -0 $backend 2>/dev/null"
  [ -b $link ]
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
within() {
  seconds=$1
  shift
  code=0
  timeout -s KILL $seconds "$@" 2>/dev/null || code=$?
  [ $code != 137 ] || { echo "not within $seconds s: $*" >&2; exit 1; }
  echo $code
}
`;
