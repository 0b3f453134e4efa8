"""Signatures here belong to the application they were made by, never to another test's."""

import sys

import pytest

from amqflow import AmqFlow
from amqflow.current import Applications


@pytest.fixture(autouse=True)
def no_current_application(monkeypatch):
    nobody = Applications()
    for module in ("amqflow.canvas.node", "amqflow.canvas.signature"):
        # By the module itself: the package has functions of the same names.
        monkeypatch.setattr(sys.modules[module], "applications", nobody)
    return nobody


@pytest.fixture
def app():
    return AmqFlow("canvas", broker="embedded://", backend=None)


@pytest.fixture
def add(app):
    @app.task(name="add")
    def add(x, y):
        return x + y

    return add
