"""What the system refuses is a clear error, and work that a pool refuses does not run, now or later."""

from __future__ import annotations

import contextvars
import os
import platform
from pathlib import Path

import fanmap
import pytest
from _scripts import HOLD, Gate, good
from fanmap import _native, _outcome

# Seconds, for what comes at once unless it never comes.
LIMIT = 30


def test_a_task_is_not_queued_by_a_pool_whose_thread_cannot_be_started(tmp_path: Path) -> None:
    good(
        """
        import multiprocessing, os, resource, sys
        import fanmap

        folder = sys.argv[1]
        pool = fanmap.ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
        pool._prepare()  # all that takes memory but the thread
        pages = int(open("/proc/self/statm").read().split()[0])
        limits = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (1 << 19), limits[1]))
        try:
            pool.map(os.mkdir, [os.path.join(folder, "refused")])
        except OSError as error:
            resource.setrlimit(resource.RLIMIT_AS, limits)
            assert "start the thread" in str(error), error
        else:
            raise SystemExit("there was memory")
        assert pool._work_queue.qsize() == 0
        list(pool.map(os.mkdir, [os.path.join(folder, "taken")]))
        pool.shutdown()
        """,
        str(tmp_path),
    )
    assert os.listdir(tmp_path) == ["taken"]


def test_items_that_no_thread_will_take_have_that_as_their_outcome() -> None:
    pool = fanmap.ThreadPoolExecutor(4)
    run = _native.ThreadRun(pool._pool, abs, contextvars.copy_context(), False, None)
    pool.shutdown()
    try:
        run.push([1, 2, 3])
    except RuntimeError as error:
        assert "after shutdown" in str(error)
    outcomes = [run.pop(LIMIT) for _ in range(3)]
    assert [outcome and outcome[0] for outcome in outcomes] == [_outcome.BROKEN] * 3
    run.close()


# Has the system calls with these numbers refused from now on; of `clone`, what makes threads passes.
REFUSE = """
import ctypes, struct, sys
def refuse(calls, errno, but_threads=None):
    LOAD, EQUAL, SET, RETURN = 0x20, 0x15, 0x45, 0x06
    ALLOW, REFUSED = 0x7fff0000, 0x00050000 | errno
    code = [(LOAD, 0, 0, 0)]
    for call in calls:
        if call == but_threads:
            code += [(EQUAL, 0, 4, call), (LOAD, 0, 0, 16), (SET, 0, 1, 0x10000), (RETURN, 0, 0, ALLOW)]
            code += [(RETURN, 0, 0, REFUSED)]
        else:
            code += [(EQUAL, 0, 1, call), (RETURN, 0, 0, REFUSED)]
    code += [(RETURN, 0, 0, ALLOW)]
    packed = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in code))
    program = struct.pack("HxxxxxxP", len(code), ctypes.addressof(packed))
    libc = ctypes.CDLL(None, use_errno=True)
    for option, *arguments in ((38, 1, 0), (22, 2, program)):
        if libc.prctl(option, *arguments, 0, 0):
            raise SystemExit(print("SKIP"))
"""

needs_numbers = pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers of the calls are x86_64's")


def tried(code: str) -> None:
    """Runs a program that is good, or says that it could not be tried."""
    if good(code) == "SKIP\n":
        pytest.skip("the system does not let a process refuse itself system calls, or mount in a space of its own")


@pytest.mark.parametrize("method", ["", "fork", "forkserver", "spawn"])
def test_a_full_table_of_files_is_said_and_over_when_there_is_room(method: str, tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(
        """
import fanmap, multiprocessing, os, resource, sys
if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1]) if sys.argv[1] else None
    with fanmap.ProcessPoolExecutor(1, context) as pool:
        pool.submit(abs, -1).result(40)  # all that is needed is imported
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    filled = [os.dup(0)]
    while filled[-1] < 100:
        filled.append(os.dup(0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (filled[-1] + 1, before[1]))
    # From none to what one worker needs: each step may be the one that is refused.
    outcomes = set()
    for _ in range(24):
        pool = fanmap.ProcessPoolExecutor(1, context)
        try:
            error = pool.submit(abs, -1).exception(40)
        except (OSError, fanmap.BrokenProcessPool) as refused:
            error = refused
        pool.shutdown()
        assert error is None or "Too many open files" in str(error), repr(error)
        outcomes.add(error is None)
        os.close(filled.pop(0))
    assert outcomes == {True, False}, outcomes
    resource.setrlimit(resource.RLIMIT_NOFILE, before)
    with fanmap.ProcessPoolExecutor(1, context) as pool:
        assert pool.submit(abs, -1).result(40) == 1
        """
    )
    good("", method, command=(str(script),))


# Fills the table of open files, and makes room in it again.
FILL = """
import fanmap, multiprocessing, os, resource, signal, sys, time
def fill():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/proc/self/fd")))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, before[1]))
    held = []
    try:
        while True:
            held.append(os.dup(0))
    except OSError:
        pass
    def make_room():
        for fd in held:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    return make_room
def nothing():
    pass
def context():
    return multiprocessing.get_context(sys.argv[1]) if sys.argv[1] else None
"""


@pytest.mark.parametrize("method", ["", "fork", "forkserver", "spawn"])
def test_a_pool_that_found_no_room_for_a_worker_gets_it_once_there_is(method: str, tmp_path: Path) -> None:
    meeting = tmp_path / "meeting"
    os.mkfifo(meeting)
    script = tmp_path / "program.py"
    script.write_text(
        FILL
        + """
def meet(how):
    open(sys.argv[2], how).close()  # until another one opens it for the other way
if __name__ == "__main__":
    with fanmap.ProcessPoolExecutor(2, context()) as pool:
        pool.submit(nothing).result(40)  # all that is needed is imported
        make_room = fill()
        both = [pool.submit(meet, "rb"), pool.submit(meet, "wb")]
        pool.submit(abs, -1)  # to be asked for one more worker does not hide that there is none
        make_room()
        for future in both:
            future.result(30)
        """
    )
    good("", method, str(meeting), command=(str(script),))


# With fork all workers are started at once, and so before the table can be filled.
@pytest.mark.parametrize("method", ["", "forkserver"])
def test_a_worker_for_whose_descriptor_there_is_no_room_works_and_can_be_ended(method: str, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    code = """
def opened():
    found = {}
    for fd in os.listdir("/proc/self/fd"):
        try:
            found[fd] = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            pass
    return found
def is_invited(before):
    new = [to for fd, to in opened().items() if before.get(fd) != to]
    pipes = [to for to in new if to.startswith("pipe")]
    # Each pipe has one end left here: the worker's were sent.
    return len(pipes) == len(set(pipes)) == 2 and sum("memfd" in to for to in new) == 2
if __name__ == "__main__":
    pool = fanmap.ProcessPoolExecutor(2, context(), cancel_running=True, worker_exit_timeout=None)
    template = pool.submit(os.getppid).result(40)
    held = pool.submit(hold, sys.argv[2])
    open(sys.argv[2], "rb").read(1)
    before = opened()
    os.kill(template, signal.SIGSTOP)
    late = pool.submit_with(task_timeout=1)(time.sleep, 600)
    while not is_invited(before):
        pass
    make_room = fill()
    os.kill(template, signal.SIGCONT)
    assert isinstance(late.exception(30), fanmap.TaskTimeout), late
    make_room()
    assert held.cancel()
    assert pool.submit(abs, -2).result(30) == 2
    pool.shutdown()
    """
    try:
        script = tmp_path / "program.py"
        script.write_text(HOLD + FILL + code)
        good("", method, gate.name, command=(str(script),))
    finally:
        gate.close()


def test_a_fork_of_a_program_whose_table_is_full_says_so() -> None:
    good(
        FILL
        + """
full = [os.dup(0) for _ in range(200)]
pool = fanmap.ProcessPoolExecutor(1, multiprocessing.get_context("fork"))
pool._prepare  # imported
before = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (full[-1] + 9, before[1]))
pool._engine.started()
resource.setrlimit(resource.RLIMIT_NOFILE, before)
error = pool.submit(abs, -1).exception(40)
assert isinstance(error, fanmap.BrokenProcessPool) and "Too many open files" in str(error), repr(error)
pool.shutdown()
        """
    )


@needs_numbers
def test_a_system_without_memfd_is_told_so() -> None:
    tried(
        REFUSE
        + """
if __name__ == "__main__":
    import fanmap
    refuse([319], 38)  # ENOSYS
    pool = fanmap.ProcessPoolExecutor(1)
    try:
        pool.submit(abs, -1).result(40)
    except OSError as error:
        assert "shared memory" in str(error) and "not implemented" in str(error), error
    else:
        raise SystemExit("there was some")
    pool.shutdown()
    assert list(fanmap.map(abs, [-1], executor="threads")) == [1]
"""
    )


@needs_numbers
@pytest.mark.parametrize("method", ["template", "spawn"])
def test_a_refused_fork_breaks_the_pool_with_the_systems_words(method: str) -> None:
    tried(
        REFUSE
        + f"""
if __name__ == "__main__":
    import fanmap, multiprocessing
    context = None if {method!r} == "template" else multiprocessing.get_context({method!r})
    refuse([435], 38)  # clone3: the library goes on with clone
    refuse([56, 57, 58], 11, but_threads=56)  # EAGAIN
    pool = fanmap.ProcessPoolExecutor(2, context)
    try:
        pool.submit(abs, -1).result(40)
    except fanmap.BrokenProcessPool as error:
        assert "Resource temporarily unavailable" in str(error), error
    else:
        raise SystemExit("it was forked")
    pool.shutdown()
"""
    )


def test_a_working_directory_that_is_gone_does_not_matter() -> None:
    tried("""
        import os, tempfile
        import fanmap
        gone = tempfile.mkdtemp()
        os.chdir(gone)
        os.rmdir(gone)
        with fanmap.ProcessPoolExecutor(max_workers=1) as pool:
            assert pool.submit(abs, -1).result() == 1
    """)


def test_neither_a_read_only_directory_nor_a_tiny_dev_shm_matters() -> None:
    tried("""
        import ctypes, os
        import fanmap
        libc = ctypes.CDLL(None, use_errno=True)
        NEW_MOUNTS, READ_ONLY, PRIVATE = 0x20000, 1, 0x44000
        def mount(kind, where, flags, options=None):
            if libc.mount(kind, where, kind, flags, options):
                raise SystemExit(print("SKIP"))
        if libc.unshare(NEW_MOUNTS):
            raise SystemExit(print("SKIP"))
        mount(b"none", b"/", PRIVATE)
        mount(b"tmpfs", b"/dev/shm", 0, b"size=64k")
        mount(b"tmpfs", b"/mnt", READ_ONLY)
        os.chdir("/mnt")
        try:
            open("x", "w")
        except OSError:
            pass
        else:
            raise SystemExit("it can be written to")
        def double(data):
            return data * 2
        items = [bytes([n]) * 3_000_000 for n in range(8)]
        assert list(fanmap.map(double, items)) == [item * 2 for item in items]
        assert os.listdir("/dev/shm") == []
    """)
