"""A RabbitMQ for tests: a private node of our own, or one somebody else runs."""

import base64
import contextlib
import http.client
import json
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import pamqp.commands
import pamqp.frame

from tests.servers.process import Child, ServerUnavailableError, accepts, free_port, wait_ready

CHROOT = Path(__file__).parents[2] / ".cache" / "rabbitmq4"

# Debian's /usr/sbin wrappers switch to the system's user and folders; the scripts behind them
# run anywhere. The others are the generic archive's and Homebrew's.
SCRIPTS = (
    "/usr/lib/rabbitmq/bin",
    "/opt/rabbitmq/sbin",
    "/opt/homebrew/sbin",
    "/usr/local/sbin",
)

INSTALL = (
    "no RabbitMQ for the tests: run `make servers` as root on Debian or Ubuntu, install "
    "`rabbitmq-server` (it need not run), start Docker, or set AMQFLOW_TEST_AMQP_URL"
)
INSTALL_4 = "no RabbitMQ 4 for the tests: run `make .cache/rabbitmq4` as root on Debian"

# One start of the broker takes about 5 s here; the rest is for a loaded machine.
START_DEADLINE = 90

# RabbitMQ tries an at-least-once dead-lettering that was not confirmed again after 180 s
# (rabbit_fifo_dlx_worker): what met a queue without a leader after a restart comes that late.
RETRIED = 240

# What RabbitMQ writes late: its schema and the directory of its quorum queues.
WRITE_NOW = "mnesia:sync_log(), [dets:sync(Table) || Table <- dets:all()]."


class Broker:
    """What every RabbitMQ of the tests can do, whoever runs it: tell its address, hold vhosts."""

    private = False
    product = "RabbitMQ"

    def __init__(self, url: str, management_url: str) -> None:
        """Stand for the broker at `url` whose HTTP API is at `management_url`."""
        self.url = url
        self.management_url = management_url
        self._server_properties: dict[str, Any] = {}

    @property
    def version(self) -> tuple[int, ...]:
        """The broker's version, as it names itself when a client connects."""
        if not self._server_properties:
            self._server_properties = server_properties(self.url)
        return tuple(int(part) for part in self._server_properties["version"].split(".")[:3])

    def vhost_url(self, name: str) -> str:
        """Return the AMQP URL of the virtual host `name`."""
        return urlsplit(self.url)._replace(path="/" + quote(name, safe="")).geturl()

    def add_vhost(self, name: str) -> str:
        """Create a virtual host, open to our user; return its URL."""
        self.management("PUT", f"/api/vhosts/{quote(name, safe='')}", {})
        return self.vhost_url(name)

    def delete_vhost(self, name: str) -> None:
        """Delete a virtual host with all it holds; its connections are closed."""
        self.management("DELETE", f"/api/vhosts/{quote(name, safe='')}")

    def close_connections(self, vhost: str) -> int:
        """Close every connection to a virtual host as an operator does; return how many."""
        vhost = quote(vhost, safe="")
        found = self.management("GET", f"/api/vhosts/{vhost}/connections")
        for one in found:
            with contextlib.suppress(RuntimeError):  # it is gone already
                self.management("DELETE", f"/api/connections/{quote(one['name'], safe='')}")
        return len(found)

    def close(self) -> None:
        """End it if it is ours; one that somebody else runs is left alone."""

    def settle(self) -> None:
        """Let quorum queues declared just now outlive a kill of the broker.

        RabbitMQ writes the directory of its quorum queues about a second late. A queue declared
        in the second before a SIGKILL comes back without a leader, and every get, consume and
        publish on it hangs for ever (tried on 3.10.8: lost after 0.5 s, kept after 1.5 s, later
        on a loaded machine). A broker that nobody kills has nothing to write.
        """

    def wipe(self) -> None:
        """Delete every virtual host and create `/` again."""
        for vhost in self.management("GET", "/api/vhosts?columns=name"):
            self.delete_vhost(vhost["name"])
        self.add_vhost("/")

    def management(self, method: str, path: str, body: object = None) -> Any:
        """Call the HTTP API; return the decoded answer, None where there is none."""
        place = urlsplit(self.management_url)
        user = f"{unquote(place.username or 'guest')}:{unquote(place.password or 'guest')}"
        connection = http.client.HTTPConnection(place.hostname or "", place.port or 80, timeout=30)
        try:
            connection.request(
                method,
                place.path.rstrip("/") + path,
                body=None if body is None else json.dumps(body),
                headers={
                    "Authorization": "Basic " + base64.b64encode(user.encode()).decode(),
                    "Content-Type": "application/json",
                },
            )
            response = connection.getresponse()
            answer = response.read()
        finally:
            connection.close()
        if response.status >= http.HTTPStatus.BAD_REQUEST:
            raise RuntimeError(f"{method} {path}: {response.status} {answer[:500]!r}")
        return json.loads(answer) if answer else None


class RabbitMQ(Broker):
    """A node started from installed binaries: own ports, name, data, cookie and epmd.

    It may be killed and restarted; its data stay until `close`. Like everything started by
    `Child`, it ends with this process even when that is killed.
    """

    private = True

    def __init__(
        self, *, flavour: str | None = None, conf: Mapping[str, str] | None = None
    ) -> None:
        """Prepare a node; `start` starts it.

        Args:
            flavour: "4" for the chroot that tools/rabbitmq4.sh builds, "" for the system's own;
                left out, AMQFLOW_TEST_RABBITMQ says.
            conf: Lines of rabbitmq.conf over the defaults below.
        """
        flavour = os.environ.get("AMQFLOW_TEST_RABBITMQ", "") if flavour is None else flavour
        self._root = CHROOT if flavour == "4" else None
        self._scripts = find_scripts(self._root)
        self._port, self._dist_port, self._epmd_port, management = (free_port() for _ in range(4))
        self._folder = tempfile.TemporaryDirectory(
            prefix="amqflow-rabbitmq-", ignore_cleanup_errors=True
        )
        self._home = Path(self._folder.name)
        self._node = f"amqflow-{secrets.token_hex(4)}@localhost"
        self._epmd: Child | None = None
        self._beam: Child | None = None
        self.ctl_used = False
        self._write_files(management, conf or {})
        super().__init__(
            f"amqp://guest:guest@127.0.0.1:{self._port}/",
            f"http://guest:guest@127.0.0.1:{management}",
        )

    def _write_files(self, management: int, conf: Mapping[str, str]) -> None:
        lines = {
            "listeners.tcp.1": f"127.0.0.1:{self._port}",
            "management.tcp.ip": "127.0.0.1",
            "management.tcp.port": str(management),
            "loopback_users": "none",
            "vm_memory_high_watermark.absolute": "2GiB",
            "disk_free_limit.absolute": "50MB",
            "collect_statistics_interval": "1000",  # 5 s is long for a test that looks at counts
            "log.console": "false",
            "log.file.level": "warning",
        } | dict(conf)
        text = "".join(f"{key} = {value}\n" for key, value in lines.items())
        (self._home / "rabbitmq.conf").write_text(text)
        (self._home / "enabled_plugins").write_text("[rabbitmq_management].\n")
        cookie = self._home / ".erlang.cookie"
        cookie.write_text(secrets.token_hex(16))
        cookie.chmod(0o400)  # Erlang refuses a cookie that others can read

    @property
    def _environment(self) -> dict[str, str]:
        inside = Path("/srv") if self._root else self._home
        return {
            "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin",
            "LANG": "C.UTF-8",
            "HOME": str(inside),
            "ERL_CRASH_DUMP": str(inside / "erl_crash.dump"),
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": self._node,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "RABBITMQ_MNESIA_BASE": str(inside / "data"),
            "RABBITMQ_LOG_BASE": str(inside / "log"),
            "RABBITMQ_CONFIG_FILE": str(inside / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(inside / "enabled_plugins"),
            "RABBITMQ_PID_FILE": str(inside / "pid"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",  # the system's own settings are not ours
            # The start script then execs the Erlang VM: its pid is the child's pid.
            "RUNNING_UNDER_SYSTEMD": "true",
        }

    def _command(self, *argv: str) -> list[str]:
        """Return `argv` as it is run: as it stands, or in the chroot with our folder as /srv."""
        if self._root is None:
            return list(argv)
        enter = (
            'mount -t proc proc "$0/proc" && mount --bind "$1" "$0/srv" && root="$0" && shift && '
            'exec chroot "$root" setpriv --pdeathsig KILL "$@"'
        )
        # The mounts live in a namespace of the node's own and go with it.
        namespace = ["unshare", "--mount", "--propagation", "private"]
        return [*namespace, "sh", "-c", enter, str(self._root), str(self._home), *argv]

    @property
    def running(self) -> bool:
        """Whether the node's process lives."""
        return self._beam is not None and self._beam.alive

    @property
    def pid(self) -> int:
        """The Erlang VM's process id."""
        if self._beam is None:
            raise ServerUnavailableError("this RabbitMQ was not started")
        return self._beam.pid

    @property
    def log(self) -> str:
        """What the node printed and logged, for a test's failure message."""
        return "\n".join(
            path.read_text(errors="replace") for path in sorted(self._home.glob("log/*.log"))
        )

    def start(self) -> None:
        """Start the node, or start it again on its data; return when clients can connect."""
        if self.running:
            return
        if self._epmd is None or not self._epmd.alive:
            self._epmd = Child(
                self._command("epmd", "-port", str(self._epmd_port), "-address", "127.0.0.1"),
                env=self._environment,
                log=self._home / "epmd.out",
            )
            wait_ready(self._epmd, lambda: accepts(self._epmd_port), name="epmd")
        self._beam = Child(
            self._command(f"{self._scripts}/rabbitmq-server"),
            env=self._environment,
            log=self._home / "rabbitmq.out",
        )
        # Both listeners: which one is opened last differs from start to start.
        management = urlsplit(self.management_url).port or 0
        wait_ready(
            self._beam,
            lambda: accepts(self._port) and accepts(management),
            name="RabbitMQ",
            deadline=START_DEADLINE,
        )

    def stop(self) -> None:
        """Stop the node in order; its data stay."""
        if self._beam is not None:
            self._beam.terminate(deadline=20)

    def kill9(self) -> None:
        """SIGKILL the node: nothing is flushed, nobody is told. See `settle`."""
        if self._beam is not None:
            self._beam.kill()

    def restart(self) -> None:
        """Stop the node in order and start it on its data."""
        self.stop()
        self.start()

    def close(self) -> None:
        """End the node and forget its data."""
        for child in (self._beam, self._epmd):
            if child is not None:
                child.kill()
        self._folder.cleanup()

    def ctl(self, *args: str, deadline: float = 90) -> str:
        """Run `rabbitmqctl` on this node and return what it prints.

        A server whose `ctl` was used is not handed to another test: it may change the node.
        """
        self.ctl_used = True
        return self._ctl(*args, deadline=deadline)

    def settle(self) -> None:
        """Let RabbitMQ write what it writes late."""
        self._ctl("eval", WRITE_NOW)

    def _ctl(self, *args: str, deadline: float = 90) -> str:
        done = subprocess.run(
            self._command(f"{self._scripts}/rabbitmqctl", "--quiet", *args),
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=deadline,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"rabbitmqctl {' '.join(args)}: {done.stdout}{done.stderr}")
        return done.stdout


def find_scripts(root: Path | None) -> str:
    """Return the folder of RabbitMQ's scripts, as seen from `root`."""
    if root is not None:
        if (root / SCRIPTS[0].lstrip("/") / "rabbitmq-server").exists():
            return SCRIPTS[0]
        raise ServerUnavailableError(INSTALL_4)
    if shutil.which("epmd"):
        on_path = shutil.which("rabbitmq-server")
        for folder in (*SCRIPTS, *([str(Path(on_path).parent)] if on_path else [])):
            if Path(folder, "rabbitmq-server").exists():
                return folder
    raise ServerUnavailableError(INSTALL)


def server_properties(url: str) -> dict[str, Any]:
    """Return what the broker at `url` says of itself in connection.start."""
    place = urlsplit(url)
    address = (place.hostname or "localhost", place.port or 5672)
    with socket.create_connection(address, timeout=10) as connection:
        connection.settimeout(10)
        connection.sendall(b"AMQP\x00\x00\x09\x01")
        received = b""
        while chunk := connection.recv(4096):
            received += chunk
            if len(received) > 7 and len(received) >= 8 + int.from_bytes(received[3:7], "big"):
                break
    _, _, start = pamqp.frame.unmarshal(received)
    assert isinstance(start, pamqp.commands.Connection.Start), start
    return dict(start.server_properties or {})
