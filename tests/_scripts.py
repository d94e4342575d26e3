"""Runs programs as users do, each in a session of its own, in which nothing may be left when it has ended.

Every wait is bounded by `LIMIT`, and whatever happens the session's processes are killed at the end, so that one test
cannot disturb the next.
"""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

# Seconds. Shorter than pytest's own limit, so that a hang fails its test and not the run.
LIMIT = 40

# A task that says through a FIFO that it runs, then waits until somebody opens the other FIFO. (Opening one blocks
# until the other side is opened too, and Python resumes it after a signal.)
HOLD = """
def hold(name):
    with open(name, "wb", 0) as started:
        started.write(b"x")
    with open(name + ".gate", "rb") as gate:
        gate.read()
    return name
"""


@dataclass(frozen=True)
class Ended:
    """How a program ended: its exit code (negative for a signal) and what it wrote."""

    status: int
    out: str
    err: str


def members(session: int) -> set[int]:
    """The processes of a session that are not zombies."""
    found = set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(fields[3]) == session and fields[0] not in "ZX":
                found.add(int(name))
    return found


def gone(pids: set[int]) -> bool:
    """Waits for the end of processes that are on their way out: by pidfd, so of these very ones."""
    for pid in pids:
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            if not select.select([handle], [], [], LIMIT)[0]:
                return False
        finally:
            os.close(handle)
    return True


# Since 3.12 Python warns of any fork while there are threads. Programs here fork on purpose.
QUIET_FORKS = ("-W", "ignore:This process:DeprecationWarning")


@contextmanager
def started(code: str, *args: str, command: tuple[str, ...] | None = None) -> Iterator[subprocess.Popen[str]]:
    """A program under way: `python -c code args`, or another command line of Python's."""
    line = (*command, *args) if command else ("-c", textwrap.dedent(code), *args)
    program = subprocess.Popen(
        [sys.executable, *QUIET_FORKS, *line],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield program
    finally:
        _kill(program.pid)
        program.communicate(timeout=LIMIT)


def ended(program: subprocess.Popen[str]) -> Ended:
    """Waits for the program's end; nothing of its session may be left."""
    out, err = program.communicate(timeout=LIMIT)
    assert gone(members(program.pid)), f"processes are left; the program wrote:\n{out}\n{err}"
    return Ended(program.returncode, out, err)


def run(code: str, *args: str, command: tuple[str, ...] | None = None) -> Ended:
    """Runs a program to its end."""
    with started(code, *args, command=command) as program:
        return ended(program)


def good(code: str, *args: str, command: tuple[str, ...] | None = None) -> str:
    """Runs a program that must end well and say nothing on standard error; returns what it said."""
    result = run(code, *args, command=command)
    assert (result.status, result.err) == (0, ""), f"{result.status}\n{result.out}\n{result.err}"
    return result.out


class Gate:
    """The two FIFOs of `hold`."""

    def __init__(self, directory: Path) -> None:
        self.name = str(directory / "started")
        os.mkfifo(self.name)
        os.mkfifo(self.name + ".gate")
        # Opened for both, so that opening never blocks and the other side never sees an end.
        self._started = os.open(self.name, os.O_RDWR)

    def wait(self, count: int = 1) -> None:
        """Returns when so many tasks have said that they run."""
        for _ in range(count):
            assert select.select([self._started], [], [], LIMIT)[0], "no task has started"
            os.read(self._started, 1)

    def open(self) -> None:
        """Lets a waiting task go; blocks until there is one, if it has yet to come to the gate."""
        os.close(os.open(self.name + ".gate", os.O_WRONLY))

    def close(self) -> None:
        os.close(self._started)


class Terminal:
    """A program on a terminal of its own, whose Ctrl-C is the real one."""

    _ENTER = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"

    def __init__(self, *command: str) -> None:
        self._ours, theirs = pty.openpty()
        self.program = subprocess.Popen(
            [sys.executable, "-c", self._ENTER, sys.executable, *command],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            # No line editing: what is typed comes back as it is.
            env={**os.environ, "TERM": "dumb", "PYTHON_BASIC_REPL": "1", "PYTHONSTARTUP": ""},
        )
        os.close(theirs)
        self._said = b""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        _kill(self.program.pid)
        os.close(self._ours)
        self.program.wait(LIMIT)

    def type(self, text: str) -> None:
        """Types a line."""
        os.write(self._ours, text.encode() + b"\n")

    def interrupt(self) -> None:
        """Types Ctrl-C: the terminal signals its whole foreground process group."""
        os.write(self._ours, b"\x03")

    def until(self, text: str) -> str:
        """What was said up to and including `text`."""
        return self._read(lambda said: said.find(text.encode()) + len(text) if text.encode() in said else None)

    def rest(self) -> str:
        """What is said until the program has ended; nothing of its session may be left."""
        said = self._read(lambda _: None)
        self.program.wait(LIMIT)
        assert gone(members(self.program.pid)), f"processes are left; the program wrote:\n{said}"
        return said

    def _read(self, end: Callable[[bytes], int | None]) -> str:
        while True:
            cut = end(self._said)
            if cut is None:
                assert select.select([self._ours], [], [], LIMIT)[0], f"nothing more was said after {self._said!r}"
                try:
                    piece = os.read(self._ours, 65536)
                except OSError:
                    piece = b""  # the last process has closed it
                if piece:
                    self._said += piece
                    continue
                cut = len(self._said)
            said, self._said = self._said[:cut], self._said[cut:]
            return said.decode().replace("\r\n", "\n")


def _kill(session: int) -> None:
    for pid in members(session):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
