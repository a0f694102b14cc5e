#!/usr/bin/env bash
# Gets a fresh Debian or Ubuntu machine that has only npm ready for one job: build, test, bench or fuzz.
# Says nothing when nothing is missing. Installs npm packages as the lock file names them, and system
# packages when this user may; otherwise it says in one line what to run, and exits with 1.
set -euo pipefail
cd "$(dirname "$0")/.."

BUILD_PACKAGES=(gcc libc6-dev make libssl-dev)
# The guest: an emulated machine, its small root file system and the disk tools in it. tmux: a terminal.
# python3-swift: an S3 service; the library only, so that installing it starts nothing.
TEST_PACKAGES=(qemu-system-x86 qemu-utils qemu-system-common busybox-static e2fsprogs xz-utils lz4 zstd tmux openssl fio dmsetup mount iproute2 python3-swift
  python3-jsonschema zsh fish mandoc groff-base systemd lintian mmdebstrap libvirt-daemon libvirt-daemon-driver-qemu libvirt-clients libxml2-utils)
# libFuzzer, for the native library; about 40 MB, and of no use to the tests, which have their own replays.
FUZZ_PACKAGES=(clang libclang-rt-dev)
BENCH_PACKAGES=(qemu-system-x86 qemu-utils qemu-system-common busybox-static e2fsprogs xz-utils lz4 zstd openssl fio dmsetup mount liburing-dev libfuse3-dev)

main() {
  local mode=${1:-}
  case "$mode" in
    build) packages=("${BUILD_PACKAGES[@]}") ;;
    test) packages=("${BUILD_PACKAGES[@]}" "${TEST_PACKAGES[@]}") ;;
    bench) packages=("${BUILD_PACKAGES[@]}" "${BENCH_PACKAGES[@]}") ;;
    fuzz) packages=("${BUILD_PACKAGES[@]}" "${FUZZ_PACKAGES[@]}") ;;
    *) fail "usage: scripts/setup.sh build|test|bench|fuzz" 2 ;;
  esac
  npm_packages
  system_packages "$mode" "${packages[@]}"
  case "$mode" in
    test)
      guest_kernel
      ublk_guest
      prometheus
      package_chroot
      ;;
    bench) ublk_guest ;;
  esac
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

# The versioned package (image, modules ...) that a kernel package depends on; what follows is for apt.
kernel_dependency() {
  apt-cache depends --important "${@:3}" "$1" 2>/dev/null |
    awk -v prefix="^linux-$2-[0-9]" '$1 == "Depends:" && $2 ~ prefix { print $2; found = 1; exit } END { exit !found }'
}

# --- the guest with ublk: kernels of Debian's later suites, and an emulator; fetched, not installed ---

UBLK_FOLDER=build/guest-ublk

ublk_guest() {
  local suite missing=()
  for suite in trixie sid; do
    compgen -G "$UBLK_FOLDER/$suite/*.deb" >/dev/null || missing+=("$suite")
  done
  if is_emulator_old && [[ ! -e $UBLK_FOLDER/emulator/usr/bin/qemu-system-x86_64 ]]; then
    missing+=("$(codename)-backports")
  fi
  if ((${#missing[@]} == 0)) || [[ $(uname -m) != x86_64 ]]; then
    return 0
  fi
  if ! debian_mirror >/dev/null; then
    say "this machine has no Debian mirror to fetch kernels with ublk from; their tests will be skipped"
    return 0
  fi
  for suite in "${missing[@]}"; do
    say "fetching from $suite for the guest with ublk"
    fetch_for_ublk "$suite" || say "$suite does not have it; tests that need it will be skipped"
  done
}

# QEMU 7 runs a guest of two processors into a panic or a halt one time in four.
is_emulator_old() {
  local version
  version=$(dpkg-query -W -f '${Version}' qemu-system-x86 2>/dev/null) && dpkg --compare-versions "$version" lt 1:9
}

codename() { sed -n 's/^VERSION_CODENAME=//p' /etc/os-release; }

# Where this machine gets Debian itself (not its security updates, nor what others publish).
debian_mirror() {
  apt-get indextargets --format '$(REPO_URI) $(COMPONENT)' 'Created-By: Packages' 2>/dev/null |
    awk '$1 ~ /debian\/?$/ && $2 == "main" { print $1; found = 1; exit } END { exit !found }'
}

# Reads the suite's lists into a state of its own: those of the machine stay as they are.
fetch_for_ublk() {
  local suite=$1 state status=0
  state=$(mktemp -d)
  chmod 755 "$state" # apt drops its privileges where it can
  mkdir -p "$state"/{lists,cache,packages} "$UBLK_FOLDER"
  touch "$state/status"
  local own=(-qq -o "Dir::Etc::sourcelist=$state/sources" -o Dir::Etc::sourceparts=/dev/null
    -o "Dir::State::lists=$state/lists" -o "Dir::State::status=$state/status" -o "Dir::Cache=$state/cache"
    -o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false)
  printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n' \
    "$(debian_mirror)" "$suite" >"$state/sources"
  case "$suite" in
    *-backports) fetch_emulator "$state" "$UBLK_FOLDER/emulator" ;;
    *) fetch_suite_kernel "$state" "$UBLK_FOLDER/$suite" ;;
  esac >/dev/null 2>&1 || status=$?
  rm -rf "$state"
  return "$status"
}

download() { (cd "$1/packages" && apt-get "${own[@]}" download "${@:2}"); }

fetch_suite_kernel() {
  local state=$1 folder=$2 image part name
  apt-get "${own[@]}" -o APT::Update::Error-Mode=any update || return 1
  image=$(kernel_dependency linux-image-cloud-amd64 image "${own[@]}") || return 1
  # Where a kernel is split, the image depends on the packages that hold it and its modules.
  local parts=("$image")
  for part in binary modules base; do
    if name=$(kernel_dependency "$image" "$part" "${own[@]}"); then parts+=("$name"); fi
  done
  download "$state" "${parts[@]}" || return 1
  mkdir -p "$folder"
  mv "$state"/packages/*.deb "$folder/"
}

# Its libraries are those of the emulator that is installed.
fetch_emulator() {
  local state=$1 folder=$2 package
  apt-get "${own[@]}" -o APT::Update::Error-Mode=any update || return 1
  download "$state" qemu-system-x86 qemu-system-data || return 1
  for package in "$state"/packages/*.deb; do
    dpkg-deb -x "$package" "$state/emulator" || return 1
  done
  ! ldd "$state/emulator/usr/bin/qemu-system-x86_64" | grep 'not found' || return 1
  rm -rf "$folder"
  mv "$state/emulator" "$folder"
}

# --- Prometheus, its promtool and node_exporter: programs only; installing their packages would start services ---

PROMETHEUS_FOLDER=build/prometheus
PROMETHEUS_PACKAGES=(prometheus prometheus-node-exporter)

prometheus() {
  [[ ! -d $PROMETHEUS_FOLDER ]] || return 0
  say "fetching Prometheus"
  if ! fetch_prometheus && ! { update_lists && fetch_prometheus; }; then
    say "Prometheus cannot be had (try: sudo apt-get update); tests that need it will be skipped"
  fi
}

fetch_prometheus() {
  local part package status=0
  part=$(mktemp -d)
  if (cd "$part" && apt-get -qq download "${PROMETHEUS_PACKAGES[@]}" >/dev/null 2>&1); then
    for package in "$part"/*.deb; do
      dpkg-deb -x "$package" "$part/content" || status=1
    done
    # As a whole, in one step.
    mkdir -p build && mv "$part/content/usr/bin" "$PROMETHEUS_FOLDER" || status=1
  else
    status=1
  fi
  rm -rf "$part"
  return "$status"
}

# --- a small Debian that packages are installed in ---

package_chroot() {
  local folder=build/package-chroot mirror
  if [[ -e $folder/base.tar ]] || ((EUID != 0)) || ! mirror=$(debian_mirror); then
    return 0
  fi
  say "fetching a small Debian to install packages in"
  mkdir -p "$folder"
  if mmdebstrap --quiet --variant=minbase --format=tar "$(codename)" "$folder/part.tar" \
    "deb $mirror $(codename) main" >/dev/null 2>&1; then
    mv "$folder/part.tar" "$folder/base.tar"
  else
    say "it cannot be had; the test that installs packages will be skipped"
  fi
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
