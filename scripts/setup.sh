#!/usr/bin/env bash
# Gets a fresh Debian or Ubuntu machine that has only npm ready for one job: build, test or bench.
# Says nothing when nothing is missing. Installs npm packages as the lock file names them, and system
# packages when this user may; otherwise it says in one line what to run, and exits with 1.
set -euo pipefail
cd "$(dirname "$0")/.."

BUILD_PACKAGES=(gcc libc6-dev make libssl-dev)
# The guest: an emulated machine, its small root file system and the disk tools in it. tmux: a terminal.
TEST_PACKAGES=(qemu-system-x86 qemu-utils qemu-system-common busybox-static e2fsprogs xz-utils lz4 tmux)
BENCH_PACKAGES=(qemu-utils qemu-system-common fio liburing-dev libfuse3-dev zstd openssl)

main() {
  local mode=${1:-}
  case "$mode" in
    build) packages=("${BUILD_PACKAGES[@]}") ;;
    test) packages=("${BUILD_PACKAGES[@]}" "${TEST_PACKAGES[@]}") ;;
    bench) packages=("${BUILD_PACKAGES[@]}" "${BENCH_PACKAGES[@]}") ;;
    *) fail "usage: scripts/setup.sh build|test|bench" 2 ;;
  esac
  npm_packages
  system_packages "$mode" "${packages[@]}"
  if [[ $mode == test ]]; then
    guest_kernel
  fi
}

say() { printf 'setup: %s\n' "$1" >&2; }

fail() {
  say "$1"
  exit "${2:-1}"
}

# --- npm ---

npm_packages() {
  local installed=node_modules/.package-lock.json
  if [[ ! -e $installed || package-lock.json -nt $installed || package.json -nt $installed ]]; then
    if ! lock_is_installed; then
      say "installing the npm packages"
      quietly "npm ci" npm ci --no-audit --no-fund
    fi
    touch "$installed"
  fi
  # npm skips the step that puts the executable in place when scripts are switched off.
  if [[ $(bun_version) != "$(wanted_bun_version)" ]]; then
    say "putting bun's executable in place"
    quietly "node node_modules/bun/install.js" node node_modules/bun/install.js
    [[ $(bun_version) == "$(wanted_bun_version)" ]] || fail "bun does not start: remove node_modules and run npm ci"
  fi
}

# A file newer than the installation need not differ from it (a fresh checkout, another branch).
lock_is_installed() {
  [[ -e node_modules/.package-lock.json ]] && node -e '
    const { readFileSync } = require("node:fs");
    const versions = (file) => {
      const { packages } = JSON.parse(readFileSync(file, "utf8"));
      return Object.entries(packages).filter(([path, entry]) => path !== "" && !entry.optional);
    };
    const installed = new Map(versions("node_modules/.package-lock.json"));
    const isSame = ([path, entry]) => installed.get(path)?.version === entry.version;
    const root = JSON.parse(readFileSync("package-lock.json", "utf8")).packages[""];
    const own = JSON.parse(readFileSync("package.json", "utf8"));
    const listed = (lists) => JSON.stringify([lists.dependencies, lists.devDependencies]);
    const isCurrent = versions("package-lock.json").every(isSame) && listed(root) === listed(own);
    process.exit(isCurrent ? 0 : 1);
  '
}

bun_version() { node_modules/.bin/bun --version 2>/dev/null || true; }

wanted_bun_version() { node -p 'require("./package.json").devDependencies.bun'; }

# --- system ---

system_packages() {
  local mode=$1
  shift
  command -v dpkg-query >/dev/null || fail "this is not a Debian or Ubuntu machine; install what these packages hold: $*"
  local missing=()
  mapfile -t missing < <(missing_packages "$@")
  ((${#missing[@]} > 0)) || return 0
  may_be_root || fail "packages are missing; run: sudo apt-get install ${missing[*]}"
  say "installing for $mode: ${missing[*]}"
  if ! apt_install "${missing[@]}" 2>/dev/null; then
    update_lists || say "the package lists could not be read anew"
    quietly "apt-get install ${missing[*]}" apt_install "${missing[@]}"
  fi
}

apt_install() {
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y \
    -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 --no-install-recommends install "$@" </dev/null >/dev/null
}

update_lists() {
  may_be_root || return 1
  say "reading the package lists anew"
  as_root apt-get -qq -o DPkg::Lock::Timeout=300 update >/dev/null 2>&1
}

may_be_root() {
  ((EUID == 0)) || { command -v sudo >/dev/null && sudo -n true 2>/dev/null; }
}

as_root() {
  if ((EUID == 0)); then "$@"; else sudo -n "$@"; fi
}

missing_packages() {
  local installed name
  installed=$(dpkg-query -W -f '${Package} ${db:Status-Status}\n' "$@" 2>/dev/null || true)
  for name in "$@"; do
    grep -qx "$name installed" <<<"$installed" || printf '%s\n' "$name"
  done
}

# --- the kernel of the tests' guest: fetched, not installed ---

guest_kernel() {
  local folder=build/guest
  ! compgen -G "$folder/*.deb" >/dev/null || return 0
  if [[ $(uname -m) != x86_64 ]]; then
    say "there is no guest for this kind of processor; its tests will be skipped"
    return 0
  fi
  say "fetching a kernel package for the guest"
  if ! fetch_kernel "$folder" && ! { update_lists && fetch_kernel "$folder"; }; then
    say "no kernel package can be had (try: sudo apt-get update); the guest's tests will be skipped"
  fi
}

fetch_kernel() {
  local folder=$1 image part
  image=$(kernel_dependency linux-image-cloud-amd64 image || kernel_dependency linux-image-virtual image) || return 1
  part=$(mktemp -d)
  # Where the modules are a package of their own, the image depends on it.
  if (cd "$part" && apt-get -qq download "$image" $(kernel_dependency "$image" modules) >/dev/null 2>&1); then
    mkdir -p "$folder"
    mv "$part"/*.deb "$folder/"
  fi
  rm -rf "$part"
  compgen -G "$folder/*.deb" >/dev/null
}

# The versioned package (image or modules) that a kernel package depends on.
kernel_dependency() {
  apt-cache depends --important "$1" 2>/dev/null |
    awk -v prefix="^linux-$2-[0-9]" '$1 == "Depends:" && $2 ~ prefix { print $2; found = 1; exit } END { exit !found }'
}

# Runs a step whose output is of interest only when it fails.
quietly() {
  local name=$1 output
  shift
  output=$("$@" 2>&1) || {
    printf '%s\n' "$output" | tail -n 20 >&2
    fail "$name failed"
  }
}

main "$@"
