#!/usr/bin/env bash
# Makes a base image for the container test where no image registry can be reached: Debian by debootstrap, with its
# Python, and this machine's settings for pip, so that the build reaches what this machine reaches.
#   tests/container/base_image.sh FOLDER IMAGE      (DOCKER_HOST says which engine)
set -euo pipefail
folder=$1 image=$2 suite=${SYNCD_TEST_SUITE:-trixie}
if [ ! -e "$folder/.complete" ]; then
    rm -rf "$folder"
    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates "$suite" "$folder" > "$folder.log" 2>&1
    rm -rf "$folder"/var/cache/apt/archives/*.deb "$folder"/usr/share/doc/* "$folder"/usr/share/locale/*
    touch "$folder/.complete"
fi
cp /etc/resolv.conf "$folder/etc/resolv.conf" 2> /dev/null || true
cp /etc/ssl/certs/ca-certificates.crt "$folder/etc/ssl/certs/ca-certificates.crt"
ln -sf python3 "$folder/usr/bin/python"
python3 -m pip config list | sed -nE "s/^global\.(index-url|extra-index-url|cert|proxy|trusted-host)='(.*)'$/\1 = \2/p" \
    | sed '1i [global]' | grep -v 'file://' > "$folder/etc/pip.conf"
# The mirror that this machine sees may lag behind; signatures are checked nevertheless.
echo 'Acquire::Check-Valid-Until "false";' > "$folder/etc/apt/apt.conf.d/99-lagging-mirror"
tar -C "$folder" -c . | docker import --change 'CMD ["python3"]' - "$image" > /dev/null
