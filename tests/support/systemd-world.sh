#!/bin/bash
# systemd as the first process of namespaces, over a copy of this machine's files that goes away with it.
#
#     systemd-world.sh FOLDER REPOSITORY
#
# Runs FOLDER/script in REPOSITORY as root, as a service; what it prints goes to FOLDER/output, its exit code to
# FOLDER/code. Goes on until it is killed, and everything in it with it. With FOLDER alone it only looks whether all that
# can be had here.
set -euo pipefail
folder=$1 repository=${2:-}

if [[ $(stat -f -c %T /sys/fs/cgroup) == cgroup2fs ]]; then groups=/sys/fs/cgroup; else groups=/sys/fs/cgroup/unified; fi
group=$groups/ubiblk-test-$$
mkdir "$group"
echo $$ >"$group/cgroup.procs"

in_namespaces() {
  exec unshare --fork --pid --mount --cgroup --uts --ipc --kill-child=KILL \
    env FOLDER="$folder" REPOSITORY="$repository" bash -euc "$1"
}

# The files of the machine below, a tmpfs above: nothing that is written stays.
ROOT='
  mount --make-rprivate /
  mount -t tmpfs world "$FOLDER/root"
  mkdir "$FOLDER"/root/{upper,work,merged}
  root=$FOLDER/root/merged
  mount -t overlay world -o "lowerdir=/,upperdir=$FOLDER/root/upper,workdir=$FOLDER/root/work" "$root"
  mount -t proc proc "$root/proc"
  mount --rbind /sys "$root/sys"
  umount -R "$root/sys/fs/cgroup"
  mount -t cgroup2 cgroup "$root/sys/fs/cgroup"
  mount --rbind /dev "$root/dev"
  mount -t tmpfs run "$root/run"
'

mkdir -p "$folder/root"
if [[ -z $repository ]]; then
  in_namespaces "$ROOT"
fi

in_namespaces "$ROOT"'
  mount -t tmpfs tmp "$root/tmp"
  for path in "$FOLDER" "$REPOSITORY"; do
    mkdir -p "$root$path"
    mount --bind "$path" "$root$path"
  done
  rm -rf "$root/etc/systemd/system"
  mkdir -p "$root/etc/systemd/system"
  printf "%s\n" 0123456789abcdef0123456789abcdef >"$root/etc/machine-id"
  cat >"$root/etc/systemd/system/world.service" <<END
[Unit]
DefaultDependencies=no
[Service]
Type=oneshot
WorkingDirectory=$REPOSITORY
ExecStart=/bin/bash -c "bash -euxo pipefail $FOLDER/script >$FOLDER/output 2>&1; echo \$\$? >$FOLDER/code.new; mv $FOLDER/code.new $FOLDER/code"
TimeoutStartSec=infinity
END
  printf "[Unit]\nWants=world.service\n" >"$root/etc/systemd/system/world.target"
  # Mounts for credentials of services have to reach the first process.
  mount --make-rshared "$root"
  exec chroot "$root" env -i container=ubiblk-test PATH=/usr/sbin:/usr/bin:/sbin:/bin TERM=dumb \
    /lib/systemd/systemd --system --unit=world.target --log-target=null --show-status=no
'
