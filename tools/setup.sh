#!/bin/sh
# Installs what is missing on Debian 12 / Ubuntu 22.04 and newer. Runs in a moment when all is there.
#   tools/setup.sh          what building and testing need
#   tools/setup.sh --fuzz   clang and its fuzzing runtime too
set -eu

packages="gcc g++ libc6-dev make pkg-config libcjson-dev libpcre2-dev libutf8proc-dev
libcurl4-openssl-dev libssl-dev libstb-dev fonts-dejavu-core libcriterion-dev"
[ "${1:-}" = --fuzz ] && packages="$packages clang libclang-rt-dev"

# Debian 12 calls clang's runtime by its version only.
runtime() {
    version=$(apt-cache depends clang 2>/dev/null | sed -n 's/.*Depends: clang-\([0-9]*\).*/\1/p' | head -1)
    echo "libclang-rt-${version:-14}-dev"
}

missing=""
for p in $packages; do
    [ "$p" = libclang-rt-dev ] && p=$(runtime)
    dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing="$missing $p"
done
[ -z "$missing" ] && exit 0

if ! command -v apt-get >/dev/null 2>&1; then
    # Another distribution's names are not in dpkg's list: what pkg-config finds will do.
    pkg-config --exists libcjson libpcre2-8 libutf8proc libcurl libcrypto criterion 2>/dev/null && exit 0
    echo "setup: no apt-get here; install the counterparts of:$missing" >&2
    exit 1
fi
if [ "$(id -u)" = 0 ]; then
    as_root=""
elif command -v sudo >/dev/null 2>&1; then
    as_root="sudo"
else
    echo "setup: neither root nor sudo; ask an administrator for: apt-get install$missing" >&2
    exit 1
fi
echo "setup: installing$missing" >&2
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086
$as_root apt-get update -qq >&2
# shellcheck disable=SC2086
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >&2
