#!/bin/sh
# Runs aio-pika's and aiormq's own test suites, as their source archives on PyPI bring them, on a
# broker of ours: tools/judges/run.sh embedded|rabbitmq [FOLDER] [pytest's arguments].
# The suites are unpacked to FOLDER (default: .cache/judges); nothing of them enters the repository.
set -eu

kind=${1:?usage: tools/judges/run.sh embedded|rabbitmq [FOLDER] [PYTEST ARGUMENT]...}
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
folder=${2:-$root/.cache/judges}
[ $# -lt 2 ] && shift 1 || shift 2
mkdir -p "$folder"
cd "$folder"

version() { sed -n "s/^$1==//p" "$root/requirements.lock"; }
aio_pika=$(version aio-pika)
aiormq=$(version aiormq)

if [ ! -e "v/.complete-$aio_pika-$aiormq" ]; then
    "${PYTHON:-python3.11}" -m venv v
    v/bin/pip install --quiet "aio-pika==$aio_pika" "aiormq==$aiormq" 'pytest<9' aiomisc \
        aiomisc-pytest shortuuid timeout-decorator yarl
    v/bin/pip download --quiet --no-deps --no-binary aio-pika "aio-pika==$aio_pika"
    v/bin/pip download --quiet --no-deps --no-binary aiormq "aiormq==$aiormq"
    for archive in *.tar.gz; do tar xzf "$archive"; done
    touch "v/.complete-$aio_pika-$aiormq"
fi

failed=0
for suite in "aiormq-$aiormq" "aio_pika-$aio_pika"; do
    echo "== $suite on $kind"
    (
        cd "$suite"
        JUDGES_SERVE="$root/.venv/bin/python $here/serve.py $kind $folder/aiormq-$aiormq/tests/certs" \
            PYTHONPATH="$here" ../v/bin/python -m pytest -p docker_stand_in -q -o log_cli=false \
            --tb=line -rf tests "$@"
    ) || failed=1
done
exit $failed
