"""The files by which `embedded://` is found: trusted only where nobody else could write them."""

import os
import socket
import subprocess
import sys
from dataclasses import replace

import pytest

from amqflow import rendezvous
from amqflow.errors import AmqflowError, ConfigurationError, NoEmbeddedBroker
from amqflow.rendezvous import Rendezvous


@pytest.fixture
def runtime(tmp_path, monkeypatch):
    """A runtime folder of the test's own."""
    tmp_path.chmod(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "amqflow"


@pytest.fixture
def listening():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.fixture
def entry(runtime, listening):
    port = listening.getsockname()[1]
    return Rendezvous(
        "shop",
        os.getpid(),
        f"amqp://guest:guest@127.0.0.1:{port}/",
        management=f"http://127.0.0.1:{port}",
        store=f"127.0.0.1:{port}",
        token="t",
    )


def ended_pid():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_what_is_announced_is_found_until_it_is_withdrawn(entry, runtime):
    rendezvous.announce(entry)
    assert rendezvous.find("shop") == entry
    assert rendezvous.running() == [entry]
    rendezvous.withdraw(entry)
    assert not list(runtime.iterdir())
    with pytest.raises(NoEmbeddedBroker):
        rendezvous.find("shop")


def test_file_and_folder_are_the_users_alone(entry, runtime):
    old = os.umask(0)
    try:
        rendezvous.announce(entry)
    finally:
        os.umask(old)
    assert runtime.stat().st_mode & 0o777 == 0o700
    assert [file.stat().st_mode & 0o777 for file in runtime.iterdir()] == [0o600]


def test_none_there_says_how_to_start_one(runtime):
    with pytest.raises(NoEmbeddedBroker) as caught:
        rendezvous.find("default")
    assert str(caught.value) == (
        "no embedded broker answers for embedded://: run 'amqflow dev -A app' in another terminal, "
        "or use app.running()"
    )


def test_another_name_is_named_in_the_command_and_the_ones_that_run_too(entry, runtime):
    rendezvous.announce(entry)
    with pytest.raises(NoEmbeddedBroker) as caught:
        rendezvous.find("mail")
    assert "amqflow dev -A app --name mail" in str(caught.value)
    assert "running: embedded://shop" in str(caught.value)


def test_an_ended_process_is_stale_and_makes_way(entry, runtime):
    stale = replace(entry, pid=ended_pid())
    rendezvous.announce(stale)
    with pytest.raises(NoEmbeddedBroker, match="has ended"):
        rendezvous.find("shop")
    assert rendezvous.running() == []
    rendezvous.announce(entry)
    assert rendezvous.find("shop") == entry


def test_a_silent_port_is_stale_and_makes_way(entry, listening, runtime):
    rendezvous.announce(entry)
    listening.close()
    with pytest.raises(NoEmbeddedBroker, match="does not answer"):
        rendezvous.find("shop")
    with socket.create_server(("127.0.0.1", 0)) as other:
        moved = replace(entry, broker=f"amqp://guest:guest@127.0.0.1:{other.getsockname()[1]}/")
        rendezvous.announce(moved)
        assert rendezvous.find("shop") == moved


def test_a_name_is_served_once(entry):
    rendezvous.announce(entry)
    with pytest.raises(
        AmqflowError, match=f"embedded://shop is served already by process {entry.pid}"
    ):
        rendezvous.announce(replace(entry, token="other"))
    assert rendezvous.find("shop") == entry


def test_withdrawing_leaves_a_successor_alone(entry):
    stale = replace(entry, pid=ended_pid())
    rendezvous.announce(stale)
    rendezvous.announce(entry)
    rendezvous.withdraw(stale)
    assert rendezvous.find("shop") == entry


def test_a_file_others_may_write_is_not_trusted(entry, runtime):
    rendezvous.announce(entry)
    (runtime / "shop.json").chmod(0o666)
    with pytest.raises(NoEmbeddedBroker, match=r"shop\.json is not trusted: others may use it"):
        rendezvous.find("shop")


def test_a_folder_others_may_write_is_not_trusted(entry, runtime):
    rendezvous.announce(entry)
    runtime.chmod(0o755)
    with pytest.raises(NoEmbeddedBroker, match="is not trusted: others may use it"):
        rendezvous.find("shop")


def test_a_link_is_not_followed(entry, runtime, tmp_path):
    rendezvous.announce(entry)
    (runtime / "shop.json").rename(tmp_path / "elsewhere.json")
    (runtime / "shop.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(NoEmbeddedBroker, match="is not trusted"):
        rendezvous.find("shop")


def test_what_belongs_to_another_user_is_not_trusted(entry, runtime, monkeypatch):
    rendezvous.announce(entry)
    owner = runtime.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    monkeypatch.setattr(rendezvous, "folder", lambda: runtime)
    with pytest.raises(NoEmbeddedBroker, match=f"it belongs to user {owner}"):
        rendezvous.find("shop")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"name": "shop"}', "\xff"])
def test_a_file_that_makes_no_sense_counts_as_none(text, entry, runtime):
    rendezvous.announce(entry)
    (runtime / "shop.json").write_text(text)
    with pytest.raises(NoEmbeddedBroker, match="no embedded broker answers"):
        rendezvous.find("shop")
    rendezvous.announce(entry)
    assert rendezvous.find("shop") == entry


def test_a_newer_version_may_say_more(entry, runtime):
    rendezvous.announce(entry)
    file = runtime / "shop.json"
    file.write_text(file.read_text().replace("{", '{"colour": "red", ', 1))
    assert rendezvous.find("shop") == entry


def test_without_a_runtime_folder_one_under_the_temp_folder_is_used(tmp_path, monkeypatch, entry):
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o755)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for runtime in (None, str(tmp_path / "missing"), str(shared)):
        if runtime is None:
            monkeypatch.delenv("XDG_RUNTIME_DIR")
        else:
            monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
        folder = rendezvous.folder()
        assert folder == tmp_path / f"amqflow-{os.geteuid()}"
        assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("url", "name"),
    [("embedded://", "default"), ("embedded://shop", "shop"), ("EMBEDDED://a.b-c_1/", "a.b-c_1")],
)
def test_a_url_names_what_it_joins(url, name):
    assert rendezvous.is_embedded(url)
    assert rendezvous.name_of(url) == name
    assert rendezvous.name_of(rendezvous.url_of(name)) == name


@pytest.mark.parametrize(
    "url", ["embedded://shop/vhost", "embedded://shop?x=1", "embedded://..", "embedded://a%2Fb"]
)
def test_a_url_that_says_more_is_refused(url):
    with pytest.raises(ConfigurationError):
        rendezvous.name_of(url)


@pytest.mark.parametrize("url", [None, "", "amqp://embedded", "embedded", "memory://embedded"])
def test_other_urls_are_not_embedded(url):
    assert not rendezvous.is_embedded(url)
