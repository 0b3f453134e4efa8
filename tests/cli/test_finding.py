"""What `-A`, options and settings get wrong is told in one sentence, with the exit code for it."""

import sys
from types import SimpleNamespace

import pytest

from amqflow.cli import main

SECRET = "hunter2-s3cret"

FILES = {
    "app": """
        from amqflow import AmqFlow
        celery_app = AmqFlow("demo", broker="amqp://127.0.0.1:1/")
        @celery_app.task
        def add(x, y): return x + y
    """,
    "boom": f"raise RuntimeError('cannot read amqp://me:{SECRET}@host/')\n",
    "broken": "def f(:\n",
    "needy": "import no_such_library\n",
    "empty": "x = 1\n",
    "leaves": "import sys; sys.exit('no configuration')\n",
    "two": "from amqflow import AmqFlow\nleft, right = AmqFlow('left'), AmqFlow('right')\n",
    "typo": "from amqflow import AmqFlow\napp = AmqFlow('typo', brker_url='x')\n",
    "wrong": "from amqflow import AmqFlow\napp = AmqFlow('wrong', task_time_limit='soon')\n",
    "idle": "from amqflow import AmqFlow\napp = AmqFlow('idle')\n",
    "astray": "from amqflow import AmqFlow\napp = AmqFlow('astray', include=['no.such.module'])\n",
    "unlucky": "from amqflow import AmqFlow\napp = AmqFlow('unlucky', include=['boom'])\n",
    "twice": """
        from amqflow import AmqFlow
        app = AmqFlow("twice")
        @app.task(name="same")
        def one(): ...
        @app.task(name="same")
        def two(): ...
    """,
    "declared": """
        from amqflow import AmqFlow
        from amqflow.topology import Topology
        app = AmqFlow("declared", topology=Topology())
        @app.task
        def add(x, y): return x + y
    """,
    "strict": """
        from amqflow import AmqFlow
        app = AmqFlow("strict", task_create_missing_queues=False)
        @app.task(queue="email")
        def mail(): ...
    """,
}


@pytest.fixture
def command(folder, monkeypatch, capsys):
    """Run a command in this process, which takes a fiftieth of the time of a new one."""
    folder.write(**FILES)
    monkeypatch.chdir(folder.path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("AMQFLOW_APP", "AMQFLOW_BROKER", "AMQFLOW_BACKEND"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        printed = capsys.readouterr()
        return SimpleNamespace(returncode=ended.value.code, stdout=printed.out, stderr=printed.err)

    yield run
    for name in FILES:
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        (None, 2, "name the application: amqflow -A module[:attribute]"),
        ("nosuch", 2, "no module named 'nosuch' from"),
        ("no.such.app", 2, "no module named 'no"),
        ("app.nope", 2, "there is no 'nope' in module 'app'"),
        ("app:nope", 2, "there is no 'nope' in module 'app'"),
        ("app:add", 2, "'add' in module 'app' is a Task, no AmqFlow application"),
        ("app.py", 2, "'app.py' is no module's name; write -A app"),
        ("./app", 2, "'./app' is no module's name; write -A app"),
        (":x", 2, "'' is no module's name; write -A module:attribute"),
        ("empty", 2, "no AmqFlow application in module 'empty'"),
        ("two", 2, "2 applications in module 'two'; write -A two:left or -A two:right"),
        ("boom", 1, "importing boom failed with RuntimeError: cannot read amqp://me:***@host/"),
        ("boom:app", 1, "boom.py:1"),
        ("broken", 1, "importing broken failed with SyntaxError: invalid syntax at"),
        ("needy", 1, "ModuleNotFoundError: No module named 'no_such_library' at"),
        ("typo", 1, "unknown setting 'brker_url' (the constructor) (did you mean 'broker_url'?)"),
        ("wrong", 1, "setting 'task_time_limit' (the constructor): expected"),
        ("twice", 1, "two functions are called 'same'"),
    ],
)
def test_an_application_that_cannot_be_had_is_one_sentence(command, name, code, words):
    done = command(*(("-A", name) if name else ()), "worker")
    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert SECRET not in done.stderr


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("idle", "the application 'idle' has no tasks"),
        ("astray", "include: cannot import 'no.such.module'"),
        ("unlucky", "importing the tasks' modules failed with RuntimeError"),
    ],
)
def test_a_worker_without_its_tasks_does_not_start(folder, name, words):
    folder.write(**FILES)
    done = folder.run("-A", name, "worker")
    assert (done.returncode, done.stdout) == (1, "")
    assert words in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert SECRET not in done.stderr


def test_debug_shows_the_traceback(folder):
    folder.write(**FILES)
    done = folder.run("--debug", "-A", "boom", "worker")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert 'boom.py", line 1' in done.stderr


def test_a_module_that_exits_keeps_its_say(folder):
    folder.write(**FILES)
    done = folder.run("-A", "leaves", "worker")
    assert (done.returncode, done.stderr) == (1, "no configuration\n")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["worker", "-Q", "high:x"], "'high:x': write queue names with optional whole weights"),
        (["worker", "-Q", "high:0"], "'high:0': write queue names"),
        (["worker", "-Q", ","], "',' names no queue"),
        (["worker", "-c", "0"], "0 is not in the range x>=1"),
        (["worker", "-c", "many"], "'many' is not a valid integer"),
        (["worker", "-l", "loud"], "'loud' is not one of 'debug', 'info'"),
        (["worker", "--prefetch-multiplier", "0"], "0 is not in the range x>=1"),
        (["worker", "--log-format", "xml"], "'xml' is not one of 'console', 'json'"),
        (["worker", "--loud"], "No such option '--loud'"),
        (["worker", "extra"], "unexpected extra argument (extra)"),
        (["workr"], "'worker'"),
        (["--workdir", "/no/such/folder", "worker"], "'/no/such/folder' does not exist"),
    ],
)
def test_a_wrong_option_is_usage(command, options, words):
    done = command("-A", "app", *options)
    assert done.returncode == 2
    assert words in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_queue_that_is_declared_nowhere_is_refused_where_queues_are_declared(folder):
    folder.write(**FILES)
    for name in ("declared", "strict"):
        done = folder.run("-A", name, "worker", "-Q", "emial")
        assert done.returncode == 1
        assert done.stderr.startswith(f"error: -Q emial: not among the queues of {name!r}:")


def test_worker_main_explains_itself_as_the_command_does(folder):
    folder.write(
        app="""
        import sys
        from amqflow import AmqFlow
        app = AmqFlow("demo")
        if __name__ == "__main__":
            app.worker_main(sys.argv[1:])
            print("done")
    """
    )
    wrong = folder.run("worker", "-c", "none", python=["app.py"])
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "'none' is not a valid integer" in wrong.stderr
    idle = folder.run("worker", python=["app.py"])
    assert (idle.returncode, idle.stdout) == (1, "")
    assert idle.stderr.startswith("error: the application 'demo' has no tasks")
    helped = folder.run("worker", "--help", python=["app.py"])
    assert helped.returncode == 0
    assert helped.stdout.endswith("done\n")


def test_the_environment_may_name_the_application(folder):
    folder.write(**FILES)
    done = folder.run("worker", AMQFLOW_APP="idle")
    assert "the application 'idle' has no tasks" in done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_is_printed(folder, shell):
    done = folder.run(_AMQFLOW_COMPLETE=f"{shell}_source")
    assert done.returncode == 0
    assert f"_AMQFLOW_COMPLETE={shell}_complete" in done.stdout
    assert done.stderr == ""


def test_commands_and_options_are_completed_without_an_application(folder):
    words = {"COMP_WORDS": "amqflow wo", "COMP_CWORD": "1"}
    done = folder.run(_AMQFLOW_COMPLETE="bash_complete", **words)
    assert done.stdout.splitlines() == ["plain,worker", "plain,workflow"]
    words = {"COMP_WORDS": "amqflow -A nosuch worker --pre", "COMP_CWORD": "4"}
    done = folder.run(_AMQFLOW_COMPLETE="bash_complete", **words)
    assert done.stdout.splitlines() == ["plain,--prefetch-multiplier"]


def test_help_and_version_need_nothing(command):
    for options in (["--help"], ["-h"], ["--version"], ["worker", "--help"], ["demo", "--help"]):
        done = command(*options)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout
