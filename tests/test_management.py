"""The management API: as it is, off, behind a path, silent, somebody else's, with a wrong login."""

import asyncio
import http.client
import http.server
import socket
import threading
import time
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest

from amqflow.errors import (
    AccessRefused,
    BrokerError,
    ConfigurationError,
    ManagementUnavailable,
    NotFound,
)
from amqflow.management import Address, Management

SECRET = "s3cr:et@/"
QUOTED = "s3cr%3Aet%40%2F"


@pytest.fixture
def api(rabbitmq, amqp_url):
    return Management.of(amqp_url, rabbitmq.management_url)


def with_login(url, user, password):
    place = urlsplit(url)
    return place._replace(netloc=f"{user}:{password}@{place.hostname}:{place.port}").geturl()


@contextmanager
def serving(handler):
    """An HTTP server on a port of its own; yields its URL."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://guest:guest@127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def answers(status, body, content="text/html", **headers):
    """A handler that says the same to everything."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.send_header("Content-Type", content)
            self.send_header("Content-Length", str(len(body)))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    return Handler


def passing_on(management_url, prefix):
    """A reverse proxy that has the API behind a path, and 404 beside it."""
    place = urlsplit(management_url)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if not self.path.startswith(f"{prefix}/api/"):
                self.send_error(404)
                return
            behind = http.client.HTTPConnection(place.hostname, place.port, timeout=20)
            login = {"Authorization": self.headers["Authorization"]}
            behind.request("GET", self.path.removeprefix(prefix), headers=login)
            found = behind.getresponse()
            body = found.read()
            behind.close()
            self.send_response(found.status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    return Handler


# -- where it is -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("broker", "management", "shown"),
    [
        ("amqp://u:p@host/v", None, "http://host:15672"),
        ("amqp://host:5673/v", None, "http://host:15672"),
        ("amqps://host/v", None, "https://host:15671"),
        ("amqp://u:p@[::1]:5672/", None, "http://[::1]:15672"),
        ("amqp://host/", "http://other:8080/rabbit/", "http://other:8080/rabbit"),
        ("amqp://host/", "https://other/rabbit/api", "https://other:443/rabbit"),
        ("amqp://host/", "http://other", "http://other:80"),
    ],
)
def test_the_address_follows_from_the_broker_unless_it_is_set(broker, management, shown):
    assert str(Address.of(broker, management)) == shown


def test_the_login_is_the_brokers_unless_the_url_has_one():
    address = Address.of(f"amqp://me:{QUOTED}@host/", "http://other:1")
    assert (address.user, address.password) == ("me", SECRET)
    address = Address.of("amqp://me:p@host/", f"http://you:{QUOTED}@other:1")
    assert (address.user, address.password) == ("you", SECRET)
    assert (Address.of("amqp://host/").user, Address.of("amqp://host/").password) == (
        "guest",
        "guest",
    )
    assert SECRET not in repr(address)
    assert QUOTED not in repr(address)


@pytest.mark.parametrize("url", ["amqp://host", "host:15672", "http://", "http://u:p@host:port/"])
def test_a_url_that_is_none_is_refused_without_its_password(url):
    with pytest.raises(ConfigurationError, match="management_url") as caught:
        Address.of("amqp://host/", url)
    assert "u:p" not in str(caught.value)


def test_the_virtual_host_is_the_broker_urls():
    assert Management.of("amqp://host/a%2Fb").vhost == "a/b"
    assert Management.of("amqp://host/").vhost == "/"
    assert Management.of("amqp://host").vhost == "/"


# -- as it is ----------------------------------------------------------------------------------


async def test_it_answers_writes_and_deletes(api):
    await api.check()
    path = api.path("queues", "a/b c/ü%")
    await api.put(path, {"durable": True})
    assert (await api.get(path))["name"] == "a/b c/ü%"
    await api.delete(path)
    await api.delete(path)
    with pytest.raises(NotFound):
        await api.get(path)


async def test_it_is_found_behind_a_path(rabbitmq, amqp_url):
    with serving(passing_on(rabbitmq.management_url, "/rabbit")) as url:
        await Management.of(amqp_url, f"{url}/rabbit/").check()
        with pytest.raises(ManagementUnavailable, match="with its path"):
            await Management.of(amqp_url, url).check()


async def test_a_refused_request_has_the_brokers_words(api):
    with pytest.raises(BrokerError, match=r"refused PUT .*no-such-type|unknown exchange type"):
        await api.put(api.path("exchanges", "x"), {"type": "no-such-type"})


# -- as it should not be -----------------------------------------------------------------------


async def test_an_unknown_virtual_host_is_named_with_the_way_out(rabbitmq):
    api = Management.of(rabbitmq.vhost_url("no/such ü"), rabbitmq.management_url)
    with pytest.raises(NotFound, match=r"virtual host 'no/such ü' does not exist.*add_vhost"):
        await api.check()


async def test_a_wrong_password_is_told_and_not_shown(rabbitmq, amqp_url):
    api = Management.of(amqp_url, with_login(rabbitmq.management_url, "guest", QUOTED))
    with pytest.raises(AccessRefused, match="refused user 'guest'; check user, password") as caught:
        await api.check()
    assert SECRET not in str(caught.value)


async def test_a_user_without_a_tag_is_told(rabbitmq, vhost, amqp_url):
    rabbitmq.management("PUT", f"/api/users/{vhost}", {"password": "p", "tags": ""})
    try:
        api = Management.of(amqp_url, with_login(rabbitmq.management_url, vhost, "p"))
        with pytest.raises(AccessRefused, match=f"'{vhost}'"):
            await api.check()
    finally:
        rabbitmq.management("DELETE", f"/api/users/{vhost}")


async def test_nobody_there_is_told_with_the_way_out(amqp_url):
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))  # bound, not listening: refused for certain
        url = f"http://me:{QUOTED}@127.0.0.1:{reserved.getsockname()[1]}/x"
        with pytest.raises(ManagementUnavailable, match="rabbitmq-plugins enable") as caught:
            await Management.of(amqp_url, url).check()
    assert SECRET not in str(caught.value)
    assert QUOTED not in str(caught.value)


async def test_a_name_that_does_not_resolve_is_told():
    api = Management.of("amqp://no-such-host.invalid/", timeout=20)
    with pytest.raises(ManagementUnavailable, match=r"no-such-host\.invalid"):
        await api.check()


async def test_silence_ends_at_the_deadline(amqp_url):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        api = Management.of(amqp_url, url, timeout=0.3)
        with pytest.raises(ManagementUnavailable, match=r"no answer within 0\.3 s"):
            await api.check()


async def test_an_answer_that_never_ends_ends_at_the_deadline(amqp_url):
    stopping = threading.Event()

    class Dribbling(answers(200, b"")):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            while not stopping.wait(0.05):
                try:
                    self.wfile.write(b" ")
                except OSError:
                    return

    with serving(Dribbling) as url:
        start = time.monotonic()
        with pytest.raises(ManagementUnavailable, match="no answer within"):
            await Management.of(amqp_url, url, timeout=0.5).check()
        assert time.monotonic() - start < 10
        stopping.set()


@pytest.mark.parametrize(
    ("handler", "words"),
    [
        (answers(200, b"<html>hello</html>"), "its answer is no JSON"),
        (answers(200, b'{"a": 1}'), "does not read like RabbitMQ's"),
        (answers(200, b"[]"), "does not read like RabbitMQ's"),
        (answers(302, b"", Location="http://elsewhere/"), "it redirects"),
        (answers(404, b"nothing"), "answers 404"),
        (answers(503, b"\x1b[31mbusy\x07"), "answers 503 to GET /api/overview: "),
    ],
    ids=["html", "json", "list", "redirect", "404", "503"],
)
async def test_what_is_no_management_api_is_told(amqp_url, handler, words):
    with serving(handler) as url, pytest.raises(ManagementUnavailable, match=words) as caught:
        await Management.of(amqp_url, url).check()
    assert str(caught.value).isprintable()


async def test_tls_with_an_unknown_certificate_is_told(amqp_url):
    with serving(answers(200, b"{}")) as url:
        secure = url.replace("http://", "https://")
        with pytest.raises(ManagementUnavailable, match="TLS failed"):
            await Management.of(amqp_url, secure).check()


async def test_requests_run_at_once(api):
    found = await asyncio.gather(*(api.get("/api/overview") for _ in range(8)))
    assert all("rabbitmq_version" in one for one in found)
