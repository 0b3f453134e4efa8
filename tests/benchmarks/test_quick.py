"""`python -m benchmarks --quick` runs every measure and leaves the published page alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.contestants import ALL

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "benchmarks" / "RESULTS.md"

FIGURES = {
    "import": {"amqflow": {"above", "own", "total"}, "celery": {"total"}},
    "ready": {key: {"seconds"} for key in ("amqflow", "amqflow-empty", "celery")},
    "publish": {one.key: {"rate", "cpu"} for one in ALL if one.published},
    "drain": {one.key: {"rate", "cpu", "first"} for one in ALL if one.drained},
    "pools": {
        key: {"rate"}
        for key in ("celery-prefork", "amqflow-processes", "amqflow-processes-classic")
    },
    "round trip": {
        key: {"p50", "p99"}
        for key in ("celery", "celery-quorum", "amqflow", "amqflow-classic", "amqflow-await")
    },
    "chords": {key: {"rate", "members", "sent"} for key in ("celery", "amqflow", "amqflow-twice")},
    "lateness": {"amqflow": {"rate", "earliest", "p50", "p99", "max"}},
    "pending": {"amqflow": {"rate", "count", "before", "after"}},
    "priorities": {"amqflow": {"count", "violations", "injected", "waited"}},
    "topology": {"amqflow": {"count", "empty", "applied", "full"}},
    "embedded publish": {key: {"rate", "cpu"} for key in ("embedded", "rabbitmq")},
    "embedded deliver": {key: {"rate", "cpu"} for key in ("embedded", "rabbitmq")},
    "embedded start": {"embedded": {"seconds", "process"}},
    "scheduling": {
        **{
            key: {"count", "earliest", "p50", "p99", "max", "cpu"} for key in ("together", "spread")
        },
        "idle": {"count", "cpu"},
    },
}
TITLES = (
    "# Benchmarks",
    "## Ratios",
    "## Limits",
    "## Draining, one worker process",
    "## Draining, two pool processes",
    "## Publishing, confirmed",
    "## Round trip, results in Redis",
    "## Chords, results in Redis",
    "## Delays",
    "## Priorities",
    "## Topology",
    "## Embedded broker",
    "## Scheduling",
    "## Starting",
    "## Measured on",
)


def benchmarks(*options, **environment):
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("AMQFLOW_")}
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *options],
        cwd=ROOT,
        env={**inherited, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.mark.slow  # a minute of peers and us on one broker
def test_every_measure_gives_its_figures(amqp_url, redis_url, tmp_path, rabbitmq, vhost):
    published, page = PAGE.read_bytes(), tmp_path / "page.md"
    done = benchmarks(
        "--quick", "--json", "--output", str(page),
        AMQFLOW_BROKER=amqp_url, AMQFLOW_BACKEND=redis_url,
        AMQFLOW_MANAGEMENT_URL=rabbitmq.management_url,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert PAGE.read_bytes() == published
    report = json.loads(done.stdout)
    assert report["on"]["RabbitMQ"] == ".".join(map(str, rabbitmq.version))
    samples = report["samples"]
    found = {
        measure: {key: set(metrics) for key, metrics in by_key.items()}
        for measure, by_key in samples.items()
    }
    assert found == FIGURES
    numbers = [
        number
        for by_key in samples.values()
        for metrics in by_key.values()
        for values in metrics.values()
        for number in values
    ]
    assert all(number >= 0 for number in numbers)
    assert samples["lateness"]["amqflow"]["earliest"][0] >= 0
    assert samples["priorities"]["amqflow"]["violations"] == [0]
    text = page.read_text()
    assert [line for line in text.splitlines() if line.startswith("#")] == list(TITLES)
    # Nothing of it stays on the broker.
    queues = [queue["name"] for queue in rabbitmq.management("GET", f"/api/queues/{vhost}")]
    assert [name for name in queues if "bench" in name] == []


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--quick"], 2, "set AMQFLOW_BROKER and AMQFLOW_BACKEND"),
        (["--only", "speed"], 2, "invalid choice: 'speed'"),
    ],
)
def test_a_wrong_command_line_is_usage(options, code, words):
    done = benchmarks(*options)
    assert done.returncode == code
    assert words in done.stderr
    assert "Traceback" not in done.stderr
