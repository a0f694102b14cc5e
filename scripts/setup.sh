#!/usr/bin/env bash
# Gets a fresh Debian or Ubuntu machine that has only npm ready for one job: build, test or bench.
# Says nothing when nothing is missing. Installs npm packages as the lock file names them, and system
# packages when this user may; otherwise it says in one line what to run, and exits with 1.
set -euo pipefail
cd "$(dirname "$0")/.."

BUILD_PACKAGES=(gcc libc6-dev make libssl-dev)
# The guest: an emulated machine, its small root file system and the disk tools in it.
TEST_PACKAGES=(qemu-system-x86 qemu-utils qemu-system-common busybox-static e2fsprogs xz-utils lz4)
BENCH_PACKAGES=(qemu-utils qemu-system-common fio liburing-dev)

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
  local as_root=()
  if ((EUID != 0)); then
    if ! command -v sudo >/dev/null || ! sudo -n true 2>/dev/null; then
      fail "packages are missing; run: sudo apt-get install ${missing[*]}"
    fi
    as_root=(sudo -n)
  fi
  say "installing for $mode: ${missing[*]}"
  if ! apt_install "${missing[@]}" 2>/dev/null; then
    say "reading the package lists anew"
    quietly "apt-get update" "${as_root[@]}" apt-get -qq -o DPkg::Lock::Timeout=300 update
    quietly "apt-get install ${missing[*]}" apt_install "${missing[@]}"
  fi
}

apt_install() {
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -y \
    -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 --no-install-recommends install "$@" </dev/null >/dev/null
}

missing_packages() {
  local installed name
  installed=$(dpkg-query -W -f '${Package} ${db:Status-Status}\n' "$@" 2>/dev/null || true)
  for name in "$@"; do
    grep -qx "$name installed" <<<"$installed" || printf '%s\n' "$name"
  done
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
