"""The pytest plugin as users have it: their tests, run by their pytest, with nothing else there."""

import os

import pytest

from tests.servers.command import run

pytest_plugins = ["pytester"]

SHOP = """
    from amqflow import AmqFlow

    app = AmqFlow("shop")
    sent = []


    @app.task(queue="email", autoretry_for=(OSError,), max_retries=3, retry_backoff=3600)
    def send(to: str, body: str = "") -> int:
        if to == "nobody":
            raise LookupError(to)
        if to == "later" and not sent:
            sent.append(None)
            raise OSError("away")
        sent.append(to)
        return len(sent)


    def sign_up(address):
        send.delay(address, body="welcome")
"""

INI = """
    [pytest]
    amqflow_app = shop:app
"""


@pytest.fixture
def project(pytester, monkeypatch):
    """A folder with an application, where pytest runs in a process of its own."""
    for name in ("AMQFLOW_BROKER", "AMQFLOW_BACKEND", "AMQFLOW_DELAY_LEVELS"):
        monkeypatch.delenv(name, raising=False)
    pytester.makeini(INI)
    pytester.makepyfile(shop=SHOP)
    pytester.syspathinsert()
    return pytester


def ran(project, *options):
    """Run the project's tests in a fork that has imported amqflow, and parse what it prints."""
    done = run("-m", "pytest", *options, cwd=project.path, env=os.environ)
    printed = done.stdout.splitlines(), done.stderr.splitlines()
    return pytest.RunResult(done.returncode, *printed, duration=0.0)


def test_assertions_read_as_sentences(project):
    project.makepyfile(
        """
        import pytest
        import shop
        from amqflow.testing import (
            assert_dead, assert_enqueued, drain, enqueued, refute_dead, refute_enqueued,
        )


        def test_what_was_sent(amqflow_app):
            shop.sign_up("a@b.c")
            found = assert_enqueued(shop.send, to="a@b.c")
            assert (found.queue, found.arguments["body"]) == ("email", "welcome")
            assert_enqueued(shop.send, "a@b.c")
            refute_enqueued(shop.send, to="x@y.z")
            assert len(enqueued(shop.send)) == 1


        def test_each_test_has_a_broker_of_its_own(amqflow_app):
            refute_enqueued(shop.send)


        def test_running_it(amqflow_app):
            shop.sign_up("a@b.c")
            result = shop.send.delay("d@e.f")
            assert drain(amqflow_app).success == 2
            refute_enqueued(shop.send)
            assert shop.sent == ["a@b.c", "d@e.f"]
            assert result.get(timeout=30) == 2


        def test_what_failed_is_dead(amqflow_app):
            shop.send.delay("nobody")
            shop.send.delay("somebody")
            ended = drain(amqflow_app)
            assert (ended.success, ended.failure) == (1, 1)
            letter = assert_dead(shop.send, to="nobody")
            assert (letter.reason, letter.queue) == ("failed", "email")
            assert letter.exception.endswith("LookupError")
            refute_dead(shop.send, to="somebody")


        def test_delays_and_retries_take_no_time(amqflow_app):
            shop.sent.clear()
            shop.send.apply_async(("tomorrow",), countdown=86_400)
            assert assert_enqueued(shop.send, to="tomorrow").delayed
            assert drain(amqflow_app).success == 0
            shop.send.delay("later")
            ended = drain(amqflow_app, delayed=True)
            assert (ended.success, ended.retry) == (2, 1)
            assert sorted(filter(None, shop.sent)) == ["later", "tomorrow"]


        def test_what_waits_for_its_rate_limit_is_delayed(amqflow_app):
            shop.send.rate_limit = "1/m"
            try:
                for number in range(5):
                    shop.send.delay(str(number))
                assert drain(amqflow_app).success == 1
                assert drain(amqflow_app, delayed=True).success == 4
            finally:
                shop.send.rate_limit = None


        def test_a_worker_beside_the_test(amqflow_app):
            with amqflow_app.running():
                assert shop.send.delay("a@b.c").get(timeout=30) >= 1


        def test_the_application_is_given_back(request):
            assert shop.app.hosted is None
        """
    )
    done = ran(project, "-p", "no:randomly", "-p", "no:xdist")
    done.assert_outcomes(passed=8)


def test_what_is_wrong_is_said_in_a_sentence(project):
    project.makepyfile(
        """
        import shop
        from amqflow.testing import assert_dead, assert_enqueued, drain, refute_enqueued


        def test_other_arguments(amqflow_app):
            shop.sign_up("x@y.z")
            assert_enqueued(shop.send, to="a@b.c")


        def test_nothing(amqflow_app):
            assert_enqueued(shop.send)


        def test_too_much(amqflow_app):
            shop.sign_up("a@b.c")
            refute_enqueued(shop.send, to="a@b.c")


        def test_not_dead(amqflow_app):
            shop.send.delay("nobody")
            drain(amqflow_app)
            assert_dead(shop.send, to="a@b.c")


        def test_no_such_argument(amqflow_app):
            assert_enqueued(shop.send, too="a@b.c")


        def test_not_bound():
            assert_enqueued(shop.send)
        """
    )
    done = ran(project)
    done.assert_outcomes(failed=6)
    done.stdout.fnmatch_lines_random(
        [
            "*AssertionError: shop.send(to='a@b.c') is not enqueued; enqueued are:",
            "*shop.send(to='x@y.z', body='welcome') in queue email",
            "*AssertionError: shop.send is not enqueued; enqueued is nothing",
            "*AssertionError: shop.send(to='a@b.c') should not be enqueued; enqueued are:",
            "*AssertionError: shop.send(to='a@b.c') is not dead; dead are:",
            "*shop.send(to='nobody') of queue email, failed: *LookupError: nobody",
            "*TypeError: got an unexpected keyword argument 'too'",
            "*the application 'shop' is not bound to a test's broker*",
        ]
    )
    assert "assertions.py" not in done.stdout.str().replace("amqflow/testing/assertions.py:", "")


def test_async_tests_have_their_twin(project):
    project.makepyfile(
        """
        import pytest
        import shop
        from amqflow.testing import adrain, assert_enqueued

        pytestmark = pytest.mark.anyio


        @pytest.fixture(scope="module")
        def anyio_backend():
            return "asyncio"


        @pytest.mark.parametrize("n", [1, 2])
        async def test_in_a_loop(amqflow_app, n):
            result = await shop.send.adelay("a@b.c")
            assert_enqueued(shop.send, to="a@b.c")
            assert (await adrain(amqflow_app)).success == 1
            assert await result.aget(timeout=30) >= 1
            await shop.send.adelay("left behind")
        """
    )
    # A new interpreter: pytest warns of plugins that were imported before it.
    done = project.runpytest_subprocess("-W", "error")
    done.assert_outcomes(passed=2)


def test_any_client_can_use_the_broker_and_any_application_be_bound(project):
    project.makeini("[pytest]\n")
    project.makepyfile(
        """
        import pika
        import pytest
        from amqflow import AmqFlow
        from amqflow.testing import assert_enqueued


        @pytest.fixture
        def app(amqflow_broker):
            made = AmqFlow("own", broker="amqp://nowhere.invalid/")

            @made.task(priority=3)
            def add(x: int, y: int) -> int:
                return x + y

            return amqflow_broker.bind(made)


        def test_bound(app, amqflow_broker):
            task = app.tasks[f"{__name__}.add"]
            task.apply_async((1, 2), priority=7)
            found = assert_enqueued(task, x=1)
            assert (found.priority, found.arguments) == (7, {"x": 1, "y": 2})
            assert [str(each) for each in amqflow_broker.enqueued()] == [str(found)]


        def test_pika(amqflow_broker):
            connection = pika.BlockingConnection(pika.URLParameters(amqflow_broker.url))
            channel = connection.channel()
            channel.queue_declare("q")
            channel.basic_publish("", "q", b"hello")
            assert channel.basic_get("q", auto_ack=True)[2] == b"hello"
            connection.close()


        def test_without_a_name(amqflow_app):
            pass
        """
    )
    done = ran(project)
    done.assert_outcomes(passed=2, errors=1)
    done.stdout.fnmatch_lines(["*name the application in pytest's configuration*"])


def test_the_plugin_brings_no_broker_and_no_worker_where_it_is_not_used(project):
    project.makepyfile(
        """
        import sys


        def test_imports():
            assert "amqflow.testing.plugin" in sys.modules
            heavy = ("amqflow.broker", "amqflow.worker", "amqflow.dev", "amqflow.testing.draining")
            assert not [name for name in heavy if name in sys.modules]
        """
    )
    done = project.runpytest_subprocess()
    done.assert_outcomes(passed=1)


def test_every_public_name_is_there():
    import amqflow.testing

    for name in amqflow.testing.__all__:
        assert getattr(amqflow.testing, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        amqflow.testing.nothing  # noqa: B018
