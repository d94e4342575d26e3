"""What a pool shows to others: nothing listens, nothing has a name, and a worker has its own descriptors alone."""

from __future__ import annotations

import multiprocessing
import os
import re
import subprocess
import sys
from pathlib import Path

import fanmap
import pytest
from _scripts import good
from conftest import children

LIMIT = 60

METHODS = ["template", "fork", "forkserver", "spawn"]


def descriptors(pid: int) -> dict[int, str]:
    """What each descriptor of a process means."""
    found = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/{pid}/fd/{name}")
        except FileNotFoundError:
            continue
    return found


def descendants(pid: int) -> set[int]:
    found = children(pid)
    return found.union(*map(descendants, found))


def sockets_with_an_address() -> set[str]:
    """The inodes of all sockets that listen, or that others can reach by a name."""
    found = set()
    for kind in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/net/{kind}").read_text().splitlines()[1:]:
            found.add(line.split()[9])
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        fields = line.split()
        if len(fields) > 7 or int(fields[3], 16) & 0x10000:
            found.add(fields[6])
    return found


@pytest.mark.parametrize("method", METHODS)
def test_no_socket_listens_and_no_memory_has_a_name(method: str) -> None:
    context = None if method == "template" else multiprocessing.get_context(method)
    with fanmap.ProcessPoolExecutor(2, context) as pool:
        before = descriptors(os.getpid())
        assert pool.submit(len, bytes(1_000_000)).result(LIMIT) == 1_000_000
        own = {fd: to for fd, to in descriptors(os.getpid()).items() if before.get(fd) != to}
        asked = set(pool._processes)  # once they have been started
        workers = descendants(os.getpid())
        assert asked <= workers
        opened = [own, *map(descriptors, asked)]
        reachable = sockets_with_an_address()
        for one in opened:
            inodes = {to[8:-1] for to in one.values() if to.startswith("socket:")}
            if one is own or method != "fork":  # a fork has the program's own
                assert not inodes & reachable
        for pid in [os.getpid(), *pool._processes]:
            shared = re.findall(r"^\S+ ..[-x]s .*? (/.*)$", Path(f"/proc/{pid}/maps").read_text(), re.MULTILINE)
            ours = [name for name in shared if "fanmap" in name]
            assert ours and all(re.fullmatch(r"/memfd:fanmap(-\w+)? \(deleted\)", name) for name in ours)


def test_a_worker_has_no_descriptor_but_its_own() -> None:
    good("""
        import fanmap, multiprocessing, os, re, socket
        LOOK = '''(lambda os, folder: {
            int(name): os.readlink(folder + name) for name in os.listdir(folder) if os.path.lexists(folder + name)
        })(__import__("os"), "/proc/self/fd/")'''
        if __name__ == "__main__":
            kept = [os.open("/etc/passwd", os.O_RDONLY), *os.pipe(), socket.socket().detach()]
            for descriptor in kept:
                os.set_inheritable(descriptor, True)
            programs = {os.readlink(f"/proc/self/fd/{fd}") for fd in kept}
            own = re.compile(r"/memfd:fanmap(-blobs)? .deleted.|anon_inode:.(eventfd|pidfd).|/dev/null")
            for method in (None, "forkserver", "spawn"):
                context = method and multiprocessing.get_context(method)
                with fanmap.ProcessPoolExecutor(3, context) as pool:
                    list(pool.map(eval, [LOOK] * 3))
                    for seen in pool.map(eval, [LOOK] * 30):
                        others = {fd: to for fd, to in seen.items() if fd > 2 and not own.fullmatch(to)}
                        # Its channels for output and log records are none of the program's own.
                        kinds = sorted(to.partition(":")[0] for to in others.values())
                        assert kinds == ["pipe", "pipe", "socket"], (method, others)
                        assert not programs & set(others.values()), (method, others)
                        watched = [to for to in seen.values() if "pidfd" in to]
                        assert len(watched) <= 1, seen  # that of the parent, for multiprocessing
    """)


def test_another_user_can_attach_to_nothing() -> None:
    if os.getuid() != 0:
        pytest.skip("only root can become another user")
    with fanmap.ProcessPoolExecutor(1) as pool:
        worker = pool.submit(os.getpid).result(LIMIT)
        numbers = [(pid, fd) for pid in (os.getpid(), worker) for fd, to in descriptors(pid).items() if "fanmap" in to]
        assert numbers
        tried = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _AS_ANOTHER, repr(numbers)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT,
            check=False,
        )
    assert (tried.returncode, tried.stdout) == (0, "")


_AS_ANOTHER = """
import ctypes, os, sys
os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
libc = ctypes.CDLL(None, use_errno=True)
for pid, fd in eval(sys.argv[1]):
    try:
        os.open(f"/proc/{pid}/fd/{fd}", os.O_RDWR)
    except PermissionError:
        pass
    else:
        raise SystemExit("it was opened")
    watched = os.pidfd_open(pid)
    PIDFD_GETFD, PTRACE_SEIZE, EPERM = 438, 0x4206, 1
    assert libc.syscall(PIDFD_GETFD, watched, fd, 0) == -1 and ctypes.get_errno() == EPERM, ctypes.get_errno()
    assert libc.ptrace(PTRACE_SEIZE, pid, 0, 0) == -1 and ctypes.get_errno() == EPERM, ctypes.get_errno()
"""
