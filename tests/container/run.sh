#!/usr/bin/env bash
# Builds the image and tests it in an engine of its own: nothing of the machine's Docker, if there is one, is touched.
# Needs Debian's docker.io and debootstrap, and root. Skips (exit 0, with the reason) where no engine can be started.
# With docker-compose the Compose file is brought up too.
set -euo pipefail
cd "$(dirname "$0")/../.."
work=${SYNCD_TEST_WORK:-$(mktemp -d)}
mkdir -p "$work"
export DOCKER_HOST=unix://$work/docker.sock DOCKER_BUILDKIT=0
engine=
skip() { echo "the image was not tested: $1"; exit 0; }
stop() {
    status=$?
    trap - EXIT
    if [ -n "$engine" ]; then
        docker ps --all --quiet 2> /dev/null | xargs -r docker rm --force --volumes > /dev/null 2>&1 || true
        kill "$engine" 2> /dev/null || true
        wait "$engine" 2> /dev/null || true
    fi
    # an engine that was killed leaves these behind; one that ended in good order does not
    cat "$work/exec/containerd/containerd.pid" 2> /dev/null | xargs -r kill -KILL || true
    awk -v under="$work/" 'index($2, under) == 1 {print $2}' /proc/mounts | sort -r | xargs -r umount --lazy || true
    [ -n "${SYNCD_TEST_WORK:-}" ] || rm -rf "$work" || true
    exit $status
}
trap stop EXIT
trap 'exit 130' INT TERM HUP

[ "$(id -u)" = 0 ] || skip "a Docker engine needs root"
command -v dockerd > /dev/null && command -v debootstrap > /dev/null \
    || skip "no dockerd or debootstrap; on Debian: apt-get install docker.io debootstrap docker-compose"
dockerd --data-root "$work/data" --exec-root "$work/exec" --pidfile "$work/docker.pid" --host "$DOCKER_HOST" \
    --iptables=false --ip6tables=false --bridge=none > "$work/dockerd.log" 2>&1 &
engine=$!
for _ in $(seq 120); do
    docker info > /dev/null 2>&1 && break
    kill -0 "$engine" 2> /dev/null || skip "no engine can be started: $(tail -n 1 "$work/dockerd.log")"
    sleep 0.5
done

build() { # name command
    "${@:2}" > "$work/build-$1.log" 2>&1 || { tail -n 30 "$work/build-$1.log"; exit 1; }
}
# under the names that the Dockerfile and compose.yaml ask for, in an engine that can pull nothing
tests/container/base_image.sh "$work/root" python:3.12-slim-trixie || skip "no base image could be made of Debian's packages"
based=$SECONDS
if command -v docker-compose > /dev/null; then
    build postgres docker build --network host --tag postgres:17 tests/container/postgres &
    postgres=$!
else
    postgres=
fi
build syncd make image OPTIONS='--network host'
[ -z "$postgres" ] || wait "$postgres"
echo "base image: $based s; images: $((SECONDS - based)) s;" \
    "syncd's own: $(docker history --format '{{.Size}}' syncd | head -n -1 | grep -v '^0B' | paste -sd' ')"
SYNCD_TEST_CONTAINER=1 .venv/bin/python -m pytest -q -p no:randomly tests/container "$@"
