# shellcheck shell=bash
# Shared by the scripts beside this directory: messages, timed steps, Debian packages, Rust, cache folders.
# Sourced, never run. Messages go to standard error, so that a script's standard output stays its result.

set -euo pipefail

ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd -P)

if [ -z "${HOME:-}" ]; then
    HOME=$(getent passwd "$(id -u)" | cut -d: -f6)
    export HOME
fi

# Everything built lives outside the checkout: the native libraries take half an hour, and a fresh clone reuses them.
CACHE_DIR=${XDG_CACHE_HOME:-$HOME/.cache}/causeway
CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$CACHE_DIR/target}
case $CARGO_TARGET_DIR in
/*) ;;
*) CARGO_TARGET_DIR=$PWD/$CARGO_TARGET_DIR ;;
esac
export CARGO_TARGET_DIR

# What the native libraries (RocksDB, Bitcoin Core's engine) and their bindings are built with.
# ca-certificates is what lets cargo reach its registry on a minimal system.
# shellcheck disable=SC2034  # read by the scripts that source this file
BUILD_PACKAGES=(ca-certificates g++ make cmake clang libclang-dev libboost-dev)

# One package selection and one profile for everything: another `-p` or profile unifies features anew and builds
# RocksDB a second time.
# shellcheck disable=SC2034  # read by the scripts that source this file
CARGO_SELECTION=(--release --workspace --all-targets)

say() {
    printf '==> %s\n' "$*" >&2
}

die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# refuse_usage MESSAGE: for a command line that makes no sense. Needs the script's own `usage`.
refuse_usage() {
    printf 'error: %s\n\n' "$*" >&2
    usage >&2
    exit 2
}

# duration SECONDS: "1h02m03s", "2m03s" or "3s".
duration() {
    local seconds=$1
    if ((seconds >= 3600)); then
        printf '%dh%02dm%02ds' $((seconds / 3600)) $((seconds / 60 % 60)) $((seconds % 60))
    elif ((seconds >= 60)); then
        printf '%dm%02ds' $((seconds / 60)) $((seconds % 60))
    else
        printf '%ds' "$seconds"
    fi
}

# version_at_least HAVE NEED: dotted numbers.
version_at_least() {
    printf '%s\n%s\n' "$2" "$1" | sort -V -C
}

# ---- steps -----------------------------------------------------------------------------------------------------------

STEP_NAMES=()
STEP_TIMES=()
STEP=
STEP_STARTED=0

# step NAME: ends the step before and begins the next.
step() {
    end_step
    STEP=$1
    STEP_STARTED=$SECONDS
    say "$STEP"
}

end_step() {
    [ -n "$STEP" ] || return 0
    local took=$((SECONDS - STEP_STARTED))
    STEP_NAMES+=("$STEP")
    STEP_TIMES+=("$took")
    say "$STEP: $(duration "$took")"
    STEP=
}

# print_steps: the table of the steps that ended.
print_steps() {
    local i
    for i in "${!STEP_NAMES[@]}"; do
        printf '  %-44s %10s\n' "${STEP_NAMES[i]}" "$(duration "${STEP_TIMES[i]}")"
    done
    printf '  %-44s %10s\n' total "$(duration "$SECONDS")"
}

# with_heartbeat COMMAND...: runs it, and says every minute that it is still at work. The C++ builds inside cargo print
# nothing for up to twenty minutes, which looks like a hang.
with_heartbeat() {
    local started=$SECONDS since=@$EPOCHSECONDS heart status=0
    # The sleep must hold none of our files, or a reader of our output would wait for it after we ended.
    (
        while sleep 60 >/dev/null 2>&1 && kill -0 $$ 2>/dev/null; do
            say "still at work after $(duration $((SECONDS - started)))$(native_progress "$since")"
        done
    ) &
    heart=$!
    "$@" || status=$?
    kill "$heart" 2>/dev/null || true
    wait "$heart" 2>/dev/null || true
    return "$status"
}

# native_progress SINCE: how many C++ files of the native libraries were compiled since then, as the tail of a line.
native_progress() {
    local crate count
    for crate in librocksdb-sys libbitcoinkernel-sys; do
        count=$(find "$CARGO_TARGET_DIR" -path "*/build/$crate-*/out/*.o" -newermt "$1" 2>/dev/null | wc -l)
        if ((count > 0)); then
            printf ', %s: %d files compiled' "$crate" "$count"
        fi
    done
}

# own_target: makes the build cache this checkout's. Cargo tells a file of the workspace by its place in it and its time, so
# what another checkout built last could pass for ours; the crates of the registry, native libraries and all, are shared.
own_target() {
    local owner=$CARGO_TARGET_DIR/causeway-checkout
    if [ -d "$CARGO_TARGET_DIR/release" ] && [ "$(cat "$owner" 2>/dev/null)" != "$ROOT" ]; then
        say "the build cache was last used by another checkout: the workspace's own crates are built anew"
        cargo clean --quiet --manifest-path "$ROOT/Cargo.toml" --release --workspace
    fi
    mkdir -p "$CARGO_TARGET_DIR"
    printf '%s\n' "$ROOT" >"$owner"
}

# ---- Debian packages -------------------------------------------------------------------------------------------------

is_debian() {
    command -v apt-get >/dev/null && command -v dpkg-query >/dev/null
}

can_be_root() {
    [ "$(id -u)" -eq 0 ] || command -v sudo >/dev/null
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    else
        sudo "$@"
    fi
}

# missing_packages NAME...: those of them that are not installed, one a line.
missing_packages() {
    local name
    for name in "$@"; do
        [ "$(dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null)" = installed ] || printf '%s\n' "$name"
    done
}

APT_UPDATED=no

# apt_update: once a run.
apt_update() {
    [ "$APT_UPDATED" = no ] || return 0
    say "apt-get update"
    # A broken third-party source must not stop us: installing fails by itself if what we need is not there.
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Acquire::Retries=3 -o DPkg::Lock::Timeout=600 update >&2 ||
        say "apt-get update failed; going on with the package lists at hand"
    APT_UPDATED=yes
}

apt_install() {
    apt_update
    say "apt-get install $*"
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get -q -o Acquire::Retries=3 -o DPkg::Lock::Timeout=600 -o Dpkg::Use-Pty=0 \
        install -y --no-install-recommends "$@" >&2
}

# need_packages NAME...: installs those that are missing. Where it cannot (no Debian, no root), it goes on if the tools
# they bring are there.
need_packages() {
    local missing=() absent
    if is_debian; then
        mapfile -t missing < <(missing_packages "$@")
        ((${#missing[@]} > 0)) || return 0
        if can_be_root; then
            apt_install "${missing[@]}" || die "apt-get could not install: ${missing[*]}"
            return 0
        fi
    else
        missing=("$@")
    fi
    absent=$(absent_tools "${missing[@]}")
    if [ -z "$absent" ]; then
        return 0
    fi
    if is_debian; then
        die "these packages are missing: ${missing[*]}. Installing them needs root or sudo; ask an administrator for: apt-get install ${missing[*]}"
    fi
    die "not found: $absent. Only Debian and Ubuntu packages are installed automatically; here, install what they call: ${missing[*]}"
}

# absent_tools PACKAGE...: what of those packages' tools cannot be found, on one line.
absent_tools() {
    local name absent=()
    for name in "$@"; do
        case $name in
        g++) command -v c++ >/dev/null || command -v g++ >/dev/null || absent+=("a C++ compiler") ;;
        ninja-build) command -v ninja >/dev/null || absent+=(ninja) ;;
        make | cmake | clang | flock) command -v "$name" >/dev/null || absent+=("$name") ;;
        libboost-dev)
            printf '#include <boost/version.hpp>\n' | c++ -E -x c++ - >/dev/null 2>&1 || absent+=("Boost's headers")
            ;;
        # No portable way to look for these; the build says so if they are missing.
        *) ;;
        esac
    done
    ((${#absent[@]} == 0)) || printf '%s\n' "${absent[@]}" | paste -sd ',' | sed 's/,/, /g'
}

# ---- Rust ------------------------------------------------------------------------------------------------------------

rust_needed() {
    sed -n 's/^rust-version *= *"\([0-9.]*\)".*/\1/p' "$ROOT/Cargo.toml"
}

# rust_problem DIR: why the Rust in DIR will not do; nothing if it will.
rust_problem() {
    local dir=$1 version need
    need=$(rust_needed)
    if ! version=$(cd "$ROOT" && PATH=$dir:$PATH "$dir/rustc" --version 2>/dev/null); then
        printf 'no working rustc'
        return 0
    fi
    version=${version#rustc }
    version=${version%%[ -]*}
    if ! version_at_least "$version" "$need"; then
        printf 'version %s is older than %s' "$version" "$need"
    elif ! (cd "$ROOT" && PATH=$dir:$PATH "$dir/cargo" fmt --version) >/dev/null 2>&1; then
        printf 'version %s without rustfmt' "$version"
    elif ! (cd "$ROOT" && PATH=$dir:$PATH "$dir/cargo" clippy --version) >/dev/null 2>&1; then
        printf 'version %s without clippy' "$version"
    fi
}

# rust_dirs: where a cargo is, in the order of preference, one directory a line.
rust_dirs() {
    local dir dirs=()
    IFS=: read -ra dirs <<<"$PATH"
    dirs+=("${CARGO_HOME:-$HOME/.cargo}/bin" /usr/bin)
    # Ubuntu's versioned packages (rustc-1.NN), newest first.
    mapfile -t -O "${#dirs[@]}" dirs < <(find /usr/lib -maxdepth 2 -path '/usr/lib/rust-*/bin' 2>/dev/null | sort -Vr)
    for dir in "${dirs[@]}"; do
        [ ! -x "$dir/cargo" ] || printf '%s\n' "$dir"
    done | awk '!seen[$0]++'
}

# find_rust: puts the first Rust that will do at the head of PATH. Fails if there is none.
find_rust() {
    local dir
    while read -r dir; do
        if [ -z "$(rust_problem "$dir")" ]; then
            [ "$(command -v cargo)" = "$dir/cargo" ] || export PATH="$dir:$PATH"
            return 0
        fi
    done < <(rust_dirs)
    return 1
}

# candidate PACKAGE: the version that apt would install, without epoch and revision; nothing if it has none.
candidate() {
    apt-cache policy "$1" 2>/dev/null |
        sed -n 's/^ *Candidate: \([0-9]*:\)\{0,1\}\([0-9][0-9.]*\).*/\2/p'
}

# rust_packages: the archive's packages of a Rust that is new enough, on one line; nothing if it has none.
rust_packages() {
    local need version
    need=$(rust_needed)
    version=$(candidate rustc)
    if [ -n "$version" ] && version_at_least "$version" "$need"; then
        printf 'cargo rustc rustfmt rust-clippy'
        return 0
    fi
    # Debian stable carries a newer Rust beside its own, for the browsers.
    version=$(candidate rustc-web)
    if [ -n "$version" ] && version_at_least "$version" "$need"; then
        printf 'cargo-web rustc-web rustfmt-web rust-web-clippy'
        return 0
    fi
    # Ubuntu carries several, by version (in /usr/lib/rust-1.NN).
    version=$(apt-cache pkgnames rustc-1. | sed -n 's/^rustc-\(1\.[0-9]*\)$/\1/p' | sort -V | tail -n 1)
    if [ -n "$version" ] && version_at_least "$version" "$need"; then
        printf 'cargo-%s rustc-%s rustfmt-%s rust-%s-clippy' "$version" "$version" "$version" "$version"
    fi
}

# need_rust: finds a Rust that is new enough, or installs the archive's, and puts it at the head of PATH.
need_rust() {
    local packages=() line dir
    find_rust && return 0
    if is_debian && can_be_root; then
        apt_update
        read -ra packages <<<"$(rust_packages)"
        # An older Rust from the archive gives way to the newer one only by the user's own word.
        if ((${#packages[@]} > 0)); then
            apt_install --no-remove "${packages[@]}" ||
                die "apt-get could not install ${packages[*]}. If it would have to remove another Rust, run: apt-get install ${packages[*]}"
            find_rust && return 0
        fi
    fi
    {
        printf 'error: no Rust that will do: the workspace needs %s or newer, with rustfmt and clippy.\n' "$(rust_needed)"
        while read -r dir; do
            line=$(rust_problem "$dir")
            printf '  %s: %s\n' "$dir" "$line"
        done < <(rust_dirs)
        if ! is_debian; then
            printf 'Install it as your system does, or with rustup (rustup toolchain install stable), and put cargo on PATH.\n'
        elif ! can_be_root; then
            printf 'Looking in the archive needs root or sudo. Otherwise install it with rustup, and put cargo on PATH.\n'
        else
            printf 'The archive has none new enough. With rustup: rustup toolchain install stable --component rustfmt,clippy\n'
            printf '(on Debian 13, Ubuntu 24.04 and later, rustup itself is a package), and put cargo on PATH.\n'
        fi
    } >&2
    exit 1
}
