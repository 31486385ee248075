#!/usr/bin/env bash
# Builds the image and tests it in an engine of its own: nothing of the machine's Docker, if there is one, is touched.
# Needs Debian's docker.io and debootstrap, and root. Skips (exit 0, with the reason) where no engine can be started.
set -euo pipefail
cd "$(dirname "$0")/../.."
work=${SYNCD_TEST_WORK:-$(mktemp -d)}
mkdir -p "$work"
skip() { echo "skipped: $1"; exit 0; }
command -v dockerd > /dev/null && command -v debootstrap > /dev/null || skip "no dockerd or debootstrap; on Debian: apt-get install docker.io debootstrap"
[ "$(id -u)" = 0 ] || skip "a Docker engine needs root"

export DOCKER_HOST=unix://$work/docker.sock DOCKER_BUILDKIT=0
engine=
stop() {
    status=$?
    if [ -n "$engine" ]; then kill "$engine" 2> /dev/null || true; wait "$engine" 2> /dev/null || true; fi
    # what the engine leaves mounted: a network namespace
    awk -v under="$work/" 'index($2, under) == 1 {print $2}' /proc/mounts | sort -r | xargs -r umount --lazy || true
    [ -n "${SYNCD_TEST_WORK:-}" ] || rm -rf "$work" || true
    exit $status
}
trap stop EXIT INT TERM
dockerd --data-root "$work/data" --exec-root "$work/exec" --pidfile "$work/docker.pid" --host "$DOCKER_HOST" \
    --iptables=false --ip6tables=false --bridge=none > "$work/dockerd.log" 2>&1 &
engine=$!
for _ in $(seq 60); do
    docker info > /dev/null 2>&1 && break
    kill -0 "$engine" 2> /dev/null || { engine=; skip "no engine can be started: $(tail -n 1 "$work/dockerd.log")"; }
    sleep 0.5
done

base=${SYNCD_TEST_BASE_IMAGE:-$(tests/container/base_image.sh "$work/root" syncd-test-base)}
docker build --quiet --network host --build-arg BASE_IMAGE="$base" --tag syncd-test . > "$work/build.log" 2>&1 \
    || { tail -n 30 "$work/build.log"; exit 1; }
SYNCD_TEST_CONTAINER=1 SYNCD_TEST_IMAGE=syncd-test .venv/bin/python -m pytest -q -p no:randomly tests/container "$@"
