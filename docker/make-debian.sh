#!/bin/sh
# Writes a minimal Debian as a tar, for where no registry can be reached: make-debian.sh OUT.tar
set -eu
out=$1
suite=bookworm

if [ "$(id -u)" != 0 ]; then
    echo "set-up: no registry answers, and making a Debian image without one takes root: run as root" >&2
    exit 2
fi
if ! command -v debootstrap >/dev/null; then
    if ! command -v apt-get >/dev/null; then
        echo "set-up: no registry answers; install debootstrap to make a Debian image" >&2
        exit 2
    fi
    echo "set-up: installing debootstrap"
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends debootstrap >/dev/null
fi

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# The key of the archive is only there on Debian; elsewhere (Ubuntu) the keyring has to be installed.
if [ ! -e /usr/share/keyrings/debian-archive-keyring.gpg ]; then
    apt-get install -y -qq --no-install-recommends debian-archive-keyring >/dev/null
fi
debootstrap --variant=minbase --include=ca-certificates "$suite" "$folder" >/dev/null
rm -rf "$folder"/var/cache/apt/archives/*.deb "$folder"/var/lib/apt/lists/*
tar -C "$folder" --exclude=./dev --exclude=./proc --exclude=./sys -cf "$out" .
