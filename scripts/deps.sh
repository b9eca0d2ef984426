#!/usr/bin/env bash
# Installs what the tests need from Debian, and only what is missing: prometheus (and promtool with it),
# prometheus-alertmanager (and amtool with it), redis-server, libfaketime, and venv where Python comes without it. Without
# them their tests skip; in CI (CI=true) they must run, so there a failed installation is an error.
set -euo pipefail

give_up() {
    echo "deps: $1" >&2
    if [ "${CI:-}" = true ]; then exit 1; fi
    echo "deps: going on without ${missing[*]}" >&2
    exit 0
}

missing=()
command -v prometheus >/dev/null && command -v promtool >/dev/null || missing+=(prometheus)
command -v prometheus-alertmanager >/dev/null && command -v amtool >/dev/null || missing+=(prometheus-alertmanager)
command -v redis-server >/dev/null || missing+=(redis-server)
compgen -G '/usr/lib/*/faketime/libfaketimeMT.so.1' >/dev/null || missing+=(libfaketime)
python3 -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)
if [ ${#missing[@]} -eq 0 ]; then exit 0; fi

command -v apt-get >/dev/null || give_up "missing, and there is no apt-get to install with: ${missing[*]}"
if [ "$(id -u)" -eq 0 ]; then
    as_root=()
elif sudo --non-interactive true 2>/dev/null; then
    as_root=(sudo --non-interactive)
else
    give_up "missing; install with: sudo apt-get install ${missing[*]}"
fi

# The packages would start services of their own. policy-rc.d forbids it (101) during the installation; one
# that is already there belongs to somebody else and stays.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap '"${as_root[@]}" rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
    "${as_root[@]}" chmod 755 "$policy"
fi

echo "deps: installing ${missing[*]}"
"${as_root[@]}" apt-get update -qq </dev/null || give_up "apt-get update failed"
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends "${missing[@]}" </dev/null >/dev/null || give_up "apt-get install failed"
