"""Commands and applications in a runtime folder of the test's own."""

import pytest

from tests.cli.conftest import Folder


@pytest.fixture
def runtime(tmp_path_factory, monkeypatch):
    """A runtime folder nobody else announces in."""
    folder = tmp_path_factory.mktemp("run")
    folder.chmod(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    for name in ("AMQFLOW_BROKER", "AMQFLOW_BACKEND", "AMQFLOW_APP"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture
def folder(tmp_path, runtime):
    """A user's folder; its commands share the test's runtime folder."""
    return Folder(tmp_path, {"XDG_RUNTIME_DIR": str(runtime), "COLUMNS": "200"})
