"""What was measured on: versions, cores, date. Nothing that names the machine."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.broker import Broker

PACKAGES = (
    "amqflow",
    "celery",
    "kombu",
    "amqp",
    "dramatiq",
    "pika",
    "taskiq",
    "taskiq-aio-pika",
    "aio-pika",
    "aiormq",
    "uvloop",
    "redis",
)


def describe(broker: Broker) -> dict[str, str]:
    """Return the versions and the machine, as they are shown in RESULTS.md."""
    described = {
        "date": datetime.now(UTC).date().isoformat(),
        "cores": str(os.cpu_count()),
        "processor": _processor(),
        "system": f"{platform.system()} {platform.machine()}",
        "Python": platform.python_version(),
        broker.product: broker.version,
    }
    for name in PACKAGES:
        if (version := _version(name)) is not None:
            described[name] = version
    return described


def load() -> tuple[float, float, float]:
    """Return the load averages: what else the machine was doing."""
    return os.getloadavg()


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        if name != "amqflow":
            return None
    import amqflow

    return amqflow.__version__
