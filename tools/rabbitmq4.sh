#!/bin/sh
# Builds a folder with Debian 13 and its RabbitMQ 4.0, which tests/servers/rabbitmq.py starts by
# chroot (AMQFLOW_TEST_RABBITMQ=4). Needs root, Debian and the mirror its apt already uses.
set -eu

root=${1:?usage: tools/rabbitmq4.sh FOLDER}
server=usr/lib/rabbitmq/bin/rabbitmq-server
if [ -x "$root/$server" ] && [ -e "$root/.complete" ]; then
    exit 0
fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "RabbitMQ 4 for the tests needs root on Debian. Elsewhere start a RabbitMQ 4 and set" >&2
    echo "AMQFLOW_TEST_AMQP_URL, or start Docker." >&2
    exit 1
fi
if ! command -v debootstrap >/dev/null 2>&1; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq debootstrap >/dev/null
fi

# Our own apt's first Debian mirror: deb822 files name it as URIs, the older ones after `deb`.
mirror=$(
    cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources \
        2>/dev/null |
        sed -n -E 's/^deb( \[[^]]*\])? +([^ ]+) .*/\2/p; s/^URIs: *([^ ]+).*/\1/p' |
        grep -E '/debian/?$' | head -n 1
)
[ -n "$mirror" ] || { echo "no Debian mirror in /etc/apt" >&2; exit 1; }

# A folder that an interrupted run left is of no use.
rm -rf --one-file-system "$root"
mkdir -p "$root"
debootstrap --variant=minbase --include=rabbitmq-server trixie "$root" "$mirror" >"$root.log" 2>&1 || {
    tail -n 20 "$root.log" >&2
    exit 1
}
rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
touch "$root/.complete"
