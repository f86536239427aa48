# shellcheck shell=bash
# Shared by the scripts in tools/ (sourced, not run): where the tree is, who builds, how to become root.

# shellcheck disable=SC2034 # used by those who source this
tree=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly tree

say() { printf '%s\n' "$*"; }
die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# The user whom files in the tree shall belong to: who typed the command, also behind sudo.
build_user() {
    if [ "$(id -u)" = 0 ] && [ -n "${SUDO_USER:-}" ] && [ "$SUDO_USER" != root ]; then
        printf '%s\n' "$SUDO_USER"
    else
        id -un
    fi
}

# as_user CMD...: run as build_user.
as_user() {
    local user
    user=$(build_user)
    if [ "$user" = "$(id -un)" ]; then
        "$@"
    else
        runuser -u "$user" -- env HOME="$(getent passwd "$user" | cut -d: -f6)" "$@"
    fi
}

# as_root CMD...: run as root, by sudo where needed.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo -- "$@"
    else
        die "this step needs root, and there is no sudo here: run it as root"
    fi
}

# May we ask a question? Only at a terminal, never in CI, not when told --yes (or YES=1).
may_ask() { [ -t 0 ] && [ -t 1 ] && [ -z "${CI:-}" ] && [ "${YES:-0}" != 1 ]; }
