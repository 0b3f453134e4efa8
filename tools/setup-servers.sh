#!/bin/sh
# Makes sure that the binaries of RabbitMQ and Redis are there for the tests.
# Only the binaries: the tests start private servers of their own, so the system's services are
# neither started now nor needed later.
# With --clock also libfaketime, by which one slow test sets the clock of a process.
set -eu

install() {
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

missing=""
{ [ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] || command -v rabbitmq-server >/dev/null 2>&1; } ||
    missing="$missing rabbitmq-server"
{ command -v redis-server >/dev/null 2>&1 || command -v valkey-server >/dev/null 2>&1; } ||
    missing="$missing redis-server"
if [ "${1:-}" = --clock ] && ! ls /usr/lib/*/faketime/libfaketime.so.1 >/dev/null 2>&1; then
    if [ "$(id -u)" != 0 ] || ! apt-get update -qq || ! install libfaketime; then
        echo "note: without libfaketime (install it with your package manager) the test of a" >&2
        echo "clock that is set fails" >&2
    fi
fi
[ -n "$missing" ] || exit 0

if [ -n "${AMQFLOW_TEST_AMQP_URL:-}" ] && [ -n "${AMQFLOW_TEST_REDIS_URL:-}" ]; then
    echo "servers: those of AMQFLOW_TEST_AMQP_URL and AMQFLOW_TEST_REDIS_URL"
    exit 0
fi
if command -v docker >/dev/null 2>&1 && timeout 2 docker info >/dev/null 2>&1; then
    echo "servers: in Docker"
    exit 0
fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "The tests need$missing. Install that with your system's package manager (it need not" >&2
    echo "run as a service), start Docker, or set AMQFLOW_TEST_AMQP_URL and" >&2
    echo "AMQFLOW_TEST_REDIS_URL. As root on Debian or Ubuntu, make installs it." >&2
    exit 1
fi

# Debian's packages start their services when installed, unless this file says no.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    trap 'rm -f "$policy"' EXIT
fi
echo "servers: installing$missing"
apt-get update -qq
# shellcheck disable=SC2086  # one word a package
install $missing
