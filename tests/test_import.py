"""`import amqflow` brings what declares tasks, and nothing of what sends and runs them."""

import json
import subprocess
import sys

DECLARES = """
import json, sys
import amqflow
app = amqflow.AmqFlow("shop", broker="amqp://guest@127.0.0.1/", backend="redis://127.0.0.1/0")

@app.task
def add(x, y):
    return x + y

assert add(1, 2) == 3
assert add.s(1) | add.s(2)
print(json.dumps(sorted(sys.modules)))
"""

#: What the first call imports: the client, the stores, workflows, the broker's model.
LATER = {
    "aio_pika",
    "aiormq",
    "pamqp",
    "yaml",
    "redis",
    "click",
    "amqflow.control",
    "amqflow.guards",
    "amqflow.producer",
    "amqflow.protocol",
    "amqflow.results",
    "amqflow.stores",
    "amqflow.topology",
    "amqflow.transport",
    "amqflow.worker",
    "amqflow.workflow",
}


def test_declaring_tasks_imports_nothing_that_sends_or_runs_them():
    done = subprocess.run(
        [sys.executable, "-c", DECLARES], capture_output=True, text=True, timeout=60, check=True
    )
    assert LATER.isdisjoint(json.loads(done.stdout))


PRELOADS = """
import asyncio, sys
import amqflow
app = amqflow.AmqFlow("shop", broker="amqp://guest@127.0.0.1/", backend="redis://127.0.0.1/0")
app.preload()
before = set(sys.modules)

async def first_call():
    runtime = app.runtime()
    runtime.producer, runtime.launcher, app.routes

asyncio.run(first_call())
print(sorted(name for name in set(sys.modules) - before if name.startswith(("amqflow", "redis"))))
"""


def test_after_preload_the_first_call_imports_nothing_more():
    done = subprocess.run(
        [sys.executable, "-c", PRELOADS], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


FORKS = """
import os, sys, threading, time
import amqflow
app = amqflow.AmqFlow("shop", broker="amqp://guest@127.0.0.1:1/", backend="redis://127.0.0.1:1/0")
importing = threading.Thread(target=app.preload)
importing.start()
while "amqflow.app.runtime" not in sys.modules:
    time.sleep(0.001)
child = os.fork()
if child == 0:
    app.preload()
    os._exit(0)
importing.join()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_fork_in_the_middle_of_the_first_import_leaves_a_child_that_works():
    done = subprocess.run(
        [sys.executable, "-c", FORKS], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr
