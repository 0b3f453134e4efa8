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
