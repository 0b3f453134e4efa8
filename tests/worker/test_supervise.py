"""`amqflow worker --processes N`: whole workers, started again when they end."""

import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

from tests.servers.process import free_port
from tests.servers.wait import until_sync
from tests.worker.conftest import ROOT
from tests.worker.test_processes import alive


def test_workers_are_restarted_and_stop_together(stage_of):
    stage = stage_of("threads", "--processes", "2")
    stage.start()
    until_sync(lambda: stage.log().count("worker=amqflow-") >= 2, deadline=60)
    first, second = stage.children()
    assert {stage.get("pid") for _ in range(20)} <= {first, second}
    os.kill(first, signal.SIGKILL)
    until_sync(lambda: "started again" in stage.log(), deadline=60)
    assert "SIGKILL" in stage.log()
    until_sync(lambda: len(stage.children()) == 2 and first not in stage.children(), deadline=30)
    until_sync(lambda: stage.log().count("worker=amqflow-") >= 3, deadline=60)
    assert "worker=amqflow-1@" in stage.log()
    assert "worker=amqflow-2@" in stage.log()
    assert stage.get("add", 1, 1) == 2
    children = stage.children()
    assert stage.stop() == 0, stage.log()
    assert not any(map(alive, children))
    assert stage.log().count("stopped") == 2


def test_workers_stop_gracefully_when_their_supervisor_dies(stage_of):
    port = free_port()
    stage = stage_of("threads", "--processes", "1", "--health-port", str(port))
    stage.start()
    (worker,) = stage.children()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=10) as answer:
        assert answer.status == 200
    stage.send("hold", "held")
    stage.wait_lines("held.held")
    stage.process.kill()
    stage.process.wait(10)
    until_sync(lambda: "the supervisor is gone" in stage.log(), deadline=60)
    assert alive(worker), "it lets its task end"
    (stage.folder / "go").touch()
    until_sync(lambda: not alive(worker), deadline=60)
    assert "success=1" in stage.log()
    assert Path("/proc").exists()


#: Its one worker is being started when the signal comes: nobody knows its process yet.
_TOLD_WHILE_STARTING = """
import os, signal, subprocess, sys
from amqflow.worker import supervise

class Popen(subprocess.Popen):
    def __init__(self, _command, **options):
        super().__init__([sys.executable, "-c", "import signal; signal.pause()"], **options)
        os.kill(os.getpid(), signal.SIGTERM)

supervise.subprocess.Popen = Popen
sys.exit(supervise.Supervisor(1).run())
"""


def test_told_while_it_starts_a_worker_that_one_is_told_too():
    supervisor = subprocess.Popen(
        [sys.executable, "-c", _TOLD_WHILE_STARTING], cwd=ROOT, start_new_session=True
    )
    try:
        assert supervisor.wait(20) == 0
    finally:
        supervisor.kill()
