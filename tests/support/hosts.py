"""Machines on this machine: a network namespace each, with processes, memory and a Ray of its own.

A machine's power is one process; killing it takes along all that runs there. A pulled cable is a
link set down: the others hear nothing more, not even that it is gone.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

_BOOT = """set -e
hostname "$1"; shift
mount -t proc proc /proc
mount -t tmpfs -o size=600m tmpfs /dev/shm
mkdir -p /tmp/ray && mount -t tmpfs -o size=600m tmpfs /tmp/ray
exec "$@"
"""
_BOOT_S = 60.0


def lacking() -> str:
    """Why there can be no such machines here; empty if there can."""
    tools = [name for name in ("ip", "unshare", "nsenter", "mount") if not shutil.which(name)]
    if tools:
        return f"needs {', '.join(tools)}"
    if os.geteuid() != 0:
        return "needs root to make network namespaces"
    probe = f"dcai-probe-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True)
    if made.returncode:
        return f"no network namespaces here ({made.stderr.strip()})"
    _ip("netns", "del", probe)
    return ""


@contextmanager
def network(folder: Path, **environment: str) -> Iterator["Network"]:
    """A network to add machines to; all of it is gone afterwards."""
    made = Network(folder, environment)
    try:
        yield made
    finally:
        made.close()


class Network:
    """A switch in the first machine, which others are plugged into; no way out."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self.prefix = f"dcai{os.getpid()}"
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "AWS_"))}
        self.environment = {
            **kept,
            # The python of the tests is that of every machine and of every job.
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(folder),
            "RAY_worker_niceness": "0",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": "5" * 64,
            **environment,
        }
        self._hosts: list[Host] = []

    def host(self, name: str) -> "Host":
        """A new machine, without power yet."""
        host = Host(self, name, len(self._hosts))
        self._hosts.append(host)
        return host

    def close(self) -> None:
        """Power off, and nothing is left."""
        for host in self._hosts:
            host.power_off()
        for host in self._hosts:
            subprocess.run(["ip", "netns", "del", host.namespace], check=False)


class Host:
    """One machine: 10.77.0.1 the first, 10.77.0.2 the next."""

    def __init__(self, network: Network, name: str, number: int) -> None:
        self.name, self.address = name, f"10.77.0.{number + 1}"
        self.namespace = f"{network.prefix}-{number}"
        self._network = network
        self._power: subprocess.Popen[bytes] | None = None
        first = f"{network.prefix}-0"
        _ip("netns", "add", self.namespace)
        self._link("set", "lo", "up")
        if number == 0:
            self._link("add", "eth0", "type", "bridge")
        else:
            cable = f"{network.prefix}v{number}"[-15:]
            _ip(
                *("link", "add", cable, "netns", first),
                *("type", "veth", "peer", "name", "eth0", "netns", self.namespace),
            )
            _ip("-n", first, "link", "set", cable, "master", "eth0", "up")
        _ip("-n", self.namespace, "addr", "add", f"{self.address}/24", "dev", "eth0")
        self._link("set", "eth0", "up")
        _ip("-n", self.namespace, "route", "add", "default", "dev", "eth0")

    @property
    def log(self) -> Path:
        """What the first process says."""
        return self._network.folder / f"{self.name}.log"

    def power_on(self, *command: str, **environment: str) -> None:
        """Boot with `command` as the first process."""
        with self.log.open("wb") as stream:
            self._power = subprocess.Popen(
                [
                    *("ip", "netns", "exec", self.namespace),
                    *("unshare", "--pid", "--mount", "--uts", "--fork", "--kill-child"),
                    *("bash", "-c", _BOOT, "boot", self.name, *command),
                ],
                stdout=stream,
                stderr=stream,
                env={**self._network.environment, **environment},
                cwd=self._network.folder,
                start_new_session=True,
            )

    def start_ray(self, *options: str, **environment: str) -> None:
        """Boot with Ray, and wait until it is up."""
        self.power_on_with_ray(*options, **environment)
        self.wait_for_ray()

    def power_on_with_ray(self, *options: str, **environment: str) -> None:
        """Boot with Ray, which is not up yet."""
        store = "--object-store-memory=150000000"
        self.power_on(
            *("ray", "start", "--block", "--disable-usage-stats", store),
            *(f"--node-ip-address={self.address}", *options),
            **environment,
        )

    def wait_for_ray(self) -> None:
        """Wait until the Ray that the machine has booted with is up."""
        self.wait_until(lambda: "Ray runtime started" in self.log.read_text())

    def wait_until(self, condition: Callable[[], bool], within_s: float = _BOOT_S) -> None:
        """As long as it has power."""
        end = time.monotonic() + within_s
        while not condition():
            assert self._power
            assert self._power.poll() is None, self.log.read_text()
            assert time.monotonic() < end, f"waited in vain: {self.log.read_text()}"
            time.sleep(0.05)

    def exit_code(self, within_s: float) -> int:
        """Of the first process, once it has ended."""
        assert self._power
        return self._power.wait(within_s)

    def popen(self, *command: str, **options: object) -> "subprocess.Popen[str]":
        """A further process there."""
        assert self._power
        children = Path(f"/proc/{self._power.pid}/task/{self._power.pid}/children")
        first = children.read_text().split()[0]
        return subprocess.Popen(
            ["nsenter", "-t", first, "-n", "-m", "-p", "-u", *command],
            text=True,
            env=self._network.environment,
            **{"cwd": self._network.folder, **options},  # type: ignore[call-overload]
        )

    def run(self, *command: str, within_s: float = 300, **options: object) -> tuple[int, str]:
        """(exit code, what it said) of a command there."""
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        process = self.popen(*command, **pipes, **options)
        try:
            said, _ = process.communicate(timeout=within_s)
        finally:
            process.kill()
        return process.returncode, said

    def cut(self) -> None:
        """Pull the cable."""
        self._link("set", "eth0", "down")

    def mend(self) -> None:
        """Plug it in again."""
        self._link("set", "eth0", "up")

    def power_off(self) -> None:
        """All processes are gone at once."""
        if self._power and self._power.poll() is None:
            os.kill(self._power.pid, signal.SIGKILL)
            self._power.wait()

    def _link(self, *arguments: str) -> None:
        _ip("-n", self.namespace, "link", *arguments)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
