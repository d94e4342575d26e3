"""Ctrl-C and SIGTERM: one KeyboardInterrupt in the parent, silence from the workers, and nothing left."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from _scripts import HOLD, Ended, Gate, Terminal, ended, good, started

HEAD = "import fanmap, os, signal, sys\n" + HOLD
# The ways to wait for work over processes that never ends.
WAITS = {
    "map": "list(fanmap.map(hold, [name] * 8, buffersize=2, executor='processes'))",
    "map, all read ahead": "list(fanmap.map(hold, [name] * 8, executor='processes'))",
    "map of an executor": "with fanmap.ProcessPoolExecutor(2) as pool: list(pool.map(hold, [name] * 8))",
    "result": "with fanmap.ProcessPoolExecutor(1) as pool: pool.submit(hold, name).result()",
    "result, with a timeout": "with fanmap.ProcessPoolExecutor(1) as pool: pool.submit(hold, name).result(1000)",
    "wait": "with fanmap.ProcessPoolExecutor(1) as pool: fanmap.wait([pool.submit(hold, name)])",
    "as_completed": "with fanmap.ProcessPoolExecutor(1) as pool: list(fanmap.as_completed([pool.submit(hold, name)]))",
    "shutdown": "pool = fanmap.ProcessPoolExecutor(1); pool.submit(hold, name); pool.shutdown()",
}
# Those that end what runs; the others wait in the executor's `with` for the work that was submitted, as in the standard
# library, so that only a second Ctrl-C or the end of the tasks ends them.
AT_ONCE = ["map", "map, all read ahead", "map of an executor"]


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    made = Gate(tmp_path)
    yield made
    made.close()


def interrupted(code: str, gate: Gate, *, tasks: int = 1, then: Callable[[], None] | None = None) -> Ended:
    """Sends SIGINT to the program's whole process group, as a terminal does, once so many tasks run."""
    with started(HEAD + f"name = {gate.name!r}\n" + code) as program:
        gate.wait(tasks)
        os.killpg(program.pid, signal.SIGINT)
        if then is not None:
            then()
        return ended(program)


def one_interrupt(result: Ended) -> None:
    assert (result.status, result.out) == (-signal.SIGINT, ""), result
    assert result.err.count("Traceback") == 1 and result.err.count("KeyboardInterrupt") == 1, result.err
    assert result.err.endswith("\nKeyboardInterrupt\n"), result.err


@pytest.mark.parametrize("way", AT_ONCE)
def test_ctrl_c_ends_a_map_over_processes_at_once(gate: Gate, way: str) -> None:
    one_interrupt(interrupted(WAITS[way], gate, tasks=2))


@pytest.mark.parametrize("way", sorted(WAITS.keys() - AT_ONCE))
def test_ctrl_c_reaches_every_wait(gate: Gate, way: str) -> None:
    # That the interrupt arrived is said from within; then the pool's work is ended, as a program would that wants out.
    code = WAITS[way].replace("with fanmap.ProcessPoolExecutor(1) as pool:", "pool = fanmap.ProcessPoolExecutor(1);")
    result = interrupted(
        f"try:\n    {code}\nexcept KeyboardInterrupt:\n    print('interrupted')\n    pool.kill_workers()", gate
    )
    assert result == Ended(0, "interrupted\n", "")


def test_ctrl_c_in_a_with_ends_what_runs(gate: Gate) -> None:
    one_interrupt(interrupted(WAITS["result"], gate))


def test_ctrl_c_that_ends_a_program_ends_what_its_pools_run(gate: Gate) -> None:
    one_interrupt(interrupted("pool = fanmap.ProcessPoolExecutor(1); pool.submit(hold, name).result()", gate))


def test_a_second_ctrl_c_leaves_a_shutdown_that_waits(gate: Gate) -> None:
    code = """
pool = fanmap.ProcessPoolExecutor(1)
try:
    pool.submit(hold, name).result()
except KeyboardInterrupt:
    try:
        print("first", flush=True)
        pool.shutdown()
    except KeyboardInterrupt:
        print("second")
        pool.kill_workers()
"""
    with started(HEAD + f"name = {gate.name!r}\n" + code) as program:
        gate.wait()
        os.killpg(program.pid, signal.SIGINT)
        assert program.stdout is not None and program.stdout.readline() == "first\n"
        os.killpg(program.pid, signal.SIGINT)
        assert ended(program) == Ended(0, "second\n", "")


@pytest.mark.parametrize("executor", ["ThreadPoolExecutor", "ProcessPoolExecutor"])
def test_a_ctrl_c_that_interrupts_no_system_call_is_seen_a_moment_later(executor: str) -> None:
    """As one between the last look at the signals and the wait: `interrupt_main` leaves its flag, and no more."""
    code = f"""
import _thread, threading, time
pool = fanmap.{executor}(1)
future = pool.submit(time.sleep, 600)
about_to_wait, over = threading.Semaphore(0), threading.Semaphore(0)
missed = []

def interrupt():
    # Which lets go of the interpreter's lock once it waits.
    about_to_wait.acquire()
    _thread.interrupt_main()
    if not over.acquire(timeout=2):
        missed.append(1)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)
        over.acquire()

signal.signal(signal.SIGUSR1, lambda *_: None)
# A busy machine may keep the thread from coming in time.
for _ in range(10):
    thread = threading.Thread(target=interrupt)
    try:
        thread.start()
        about_to_wait.release()
        future.result()
    except KeyboardInterrupt:
        over.release()
    thread.join()
print(len(missed) < 5, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    with started("import fanmap, os, signal, sys" + code) as program:
        assert ended(program) == Ended(-signal.SIGKILL, "True\n", "")


def test_after_ctrl_c_the_warm_pool_is_usable(gate: Gate) -> None:
    code = """
try:
    list(fanmap.map(hold, [name] * 8, executor="processes"))
except KeyboardInterrupt:
    print(list(fanmap.map(abs, range(-3, 0), executor="processes")))
"""
    assert interrupted(code, gate, tasks=2) == Ended(0, "[3, 2, 1]\n", "")


def test_after_ctrl_c_an_executor_is_usable(gate: Gate) -> None:
    code = """
with fanmap.ProcessPoolExecutor(1) as pool:
    try:
        list(fanmap.map(hold, [name] * 3, executor=pool))
    except KeyboardInterrupt:
        print(list(pool.map(abs, range(-3, 0))), pool.submit(abs, -1).result(60))
"""
    assert interrupted(code, gate) == Ended(0, "[3, 2, 1] 1\n", "")


def test_ctrl_c_over_threads_ends_once_the_running_tasks_end(gate: Gate) -> None:
    one_interrupt(interrupted("list(fanmap.map(hold, [name], executor='threads'))", gate, then=gate.open))


def test_ctrl_c_over_threads_reads_no_further_item(gate: Gate) -> None:
    code = """
ran = []
def work(x):
    ran.append(x)
    if x == 0:
        hold(name)
try:
    list(fanmap.map(work, range(1000), executor="threads", workers=1, buffersize=2))
except KeyboardInterrupt:
    # The one behind it may have started before this thread saw the signal.
    assert ran in ([0], [0, 1]), ran
    print(list(fanmap.map(abs, [-1], executor="threads")))
"""
    assert interrupted(code, gate, then=gate.open) == Ended(0, "[1]\n", "")


def test_ctrl_c_while_the_input_is_slow_is_the_callers(gate: Gate) -> None:
    code = """
awake, wake = os.pipe()
os.set_blocking(wake, False)
signal.set_wakeup_fd(wake)  # a signal that comes just before the read ends that too
def slow():
    yield 1
    with open(name, "wb", 0) as started:
        started.write(b"x")
    yield os.read(awake, 1)
try:
    list(fanmap.map(abs, slow(), executor="processes"))
except KeyboardInterrupt:
    print(list(fanmap.map(abs, [-1], executor="processes")))
"""
    assert interrupted(code, gate) == Ended(0, "[1]\n", "")


@pytest.mark.parametrize("method", ["", "fork", "forkserver", "spawn"])
def test_ctrl_c_while_processes_start_is_not_theirs(tmp_path: Path, method: str) -> None:
    # Each new process interrupts itself as early as it can: a program while it is loaded, a fork before it returns.
    (tmp_path / "sitecustomize.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    code = """
        import fanmap, multiprocessing, os, signal, sys
        os.environ["PYTHONPATH"] = sys.argv[1]
        os.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), signal.SIGINT))
        context = multiprocessing.get_context(sys.argv[2]) if sys.argv[2] else None
        with fanmap.ProcessPoolExecutor(2, context) as pool:
            print(list(pool.map(abs, [-1, -2, -3])))
    """
    assert good(code, str(tmp_path), method) == "[1, 2, 3]\n"


def test_ctrl_c_while_idle_hurts_no_worker() -> None:
    out = good("""
        import fanmap, os, signal
        with fanmap.ProcessPoolExecutor(1) as pool:
            pid = pool.submit(os.getpid).result()
            try:
                os.killpg(0, signal.SIGINT)
                signal.pause()
            except KeyboardInterrupt:
                pass
            print(pool.submit(os.getpid).result() == pid)
    """)
    assert out == "True\n"


def test_a_program_that_ignores_ctrl_c_is_not_disturbed(gate: Gate) -> None:
    code = (
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\nprint(len(list(fanmap.map(hold, [name], executor='processes'))))"
    )
    assert interrupted(code, gate, then=gate.open) == Ended(0, "1\n", "")


def test_a_handler_of_the_users_runs_while_a_map_waits_and_the_map_goes_on(gate: Gate) -> None:
    code = """
signal.signal(signal.SIGINT, lambda *_: print("handled", flush=True))
print(len(list(fanmap.map(hold, [name], executor="processes"))))
"""
    with started(HEAD + f"name = {gate.name!r}\n" + code) as program:
        gate.wait()
        os.killpg(program.pid, signal.SIGINT)
        assert program.stdout is not None and program.stdout.readline() == "handled\n"
        gate.open()
        assert ended(program) == Ended(0, "1\n", "")


def test_a_handler_that_raises_ends_the_wait_with_its_exception(gate: Gate) -> None:
    code = """
class Stop(Exception): pass
def stop(*_): raise Stop
signal.signal(signal.SIGALRM, stop)
results = fanmap.map(hold, [name], executor="processes")
try:
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    next(results)
except Stop:
    print(list(results), list(fanmap.map(abs, [-1], executor="processes")))
"""
    # Whenever the alarm comes, the map is stuck: its one task is held for ever.
    with started(HEAD + f"name = {gate.name!r}\n" + code) as program:
        assert ended(program) == Ended(0, "[] [1]\n", "")


def test_a_worker_that_waits_in_a_program_of_its_own_is_interrupted_with_it(gate: Gate) -> None:
    # The program that the task started gets Ctrl-C as from any shell: our workers' deafness is not inherited.
    code = """
import subprocess
def outer(name):
    return subprocess.run(["sh", "-c", f"printf x > {name}; kill -INT $$"]).returncode
print(*fanmap.map(outer, [name], executor="processes"))
"""
    with started(HEAD + f"name = {gate.name!r}\n" + code) as program:
        gate.wait()
        assert ended(program) == Ended(0, f"{-signal.SIGINT}\n", "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
@pytest.mark.parametrize("group", [False, True])
def test_a_signal_that_ends_the_parent_leaves_nothing(gate: Gate, number: signal.Signals, group: bool) -> None:
    code = HEAD + "import resource\nresource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n"
    with started(code + f"name = {gate.name!r}\n" + WAITS["map"]) as program:
        gate.wait(2)
        (os.killpg if group else os.kill)(program.pid, number)
        assert ended(program) == Ended(-number, "", "")


def test_a_sigterm_handler_that_exits_leaves_nothing(gate: Gate) -> None:
    code = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
    with started(HEAD + f"name = {gate.name!r}\n" + code + WAITS["map"]) as program:
        gate.wait(2)
        program.terminate()
        assert ended(program) == Ended(7, "", "")


def test_a_task_may_be_stopped_by_sigterm_to_its_worker() -> None:
    # Workers take signals as any process does, SIGINT apart.
    out = good("""
        import fanmap, os, signal
        def look():
            return [signal.getsignal(number) == signal.SIG_DFL for number in (signal.SIGTERM, signal.SIGHUP)], (
                signal.pthread_sigmask(signal.SIG_BLOCK, []))
        with fanmap.ProcessPoolExecutor(1) as pool:
            print(*pool.submit(look).result())
    """)
    assert out == "[True, True] set()\n"


def test_ctrl_c_at_the_prompt_returns_to_the_prompt(gate: Gate) -> None:
    with Terminal("-q") as prompt:
        prompt.until(">>> ")
        for line in ("import fanmap", *HOLD.strip().splitlines(), ""):
            prompt.type(line)
        for _ in range(2):
            prompt.type(f"list(fanmap.map(hold, [{gate.name!r}] * 8, executor='processes'))")
            gate.wait(2)
            prompt.interrupt()
            said = prompt.until("\nKeyboardInterrupt\n>>> ".replace("\n", "\r\n"))
            assert said.count("Traceback") == 1 and "Process" not in said.partition("Traceback")[2], said
            prompt.type("print('next', list(fanmap.map(abs, [-1, -2], executor='processes')))")
            prompt.until("next [1, 2]")
        prompt.type("exit()")
        prompt.rest()
    # Since 3.14 a prompt that was interrupted, by anything, ends as if by the signal.
    assert prompt.program.returncode in ((0,) if sys.version_info < (3, 14) else (0, -signal.SIGINT))


def test_ctrl_c_on_a_terminal_ends_a_script_with_one_traceback(gate: Gate) -> None:
    with Terminal("-c", HEAD + f"name = {gate.name!r}\n" + WAITS["map"]) as terminal:
        gate.wait(2)
        terminal.interrupt()
        said = terminal.rest()
    assert said.count("Traceback") == 1 and said.count("KeyboardInterrupt") == 1, said
    assert terminal.program.returncode == -signal.SIGINT
