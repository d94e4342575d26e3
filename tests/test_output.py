"""What workers print."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT

import fanmap
import pytest
from _scripts import LIMIT, good, run

PRINTS = """
import fanmap, multiprocessing, sys
def work(x):
    for k in range(20):
        print("worker", x, k, "." * 100)
        print("error", x, k, "." * 100, file=sys.stderr)
if __name__ == "__main__":
    context = None if sys.argv[1] == "template" else multiprocessing.get_context(sys.argv[1])
    with fanmap.ProcessPoolExecutor(4, context) as pool:
        list(pool.map(work, range(200)))
"""
EXPECTED = sorted(f"{{}} {x} {k} {'.' * 100}" for x in range(200) for k in range(20))


@pytest.mark.parametrize("unbuffered", [False, True])
@pytest.mark.parametrize("way", ["template", "fork", "forkserver", "spawn"])
def test_lines_that_workers_print_into_a_pipe_never_mix(
    way: str, unbuffered: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    if unbuffered:
        monkeypatch.setenv("PYTHONUNBUFFERED", "1")
    script = tmp_path / "program.py"
    script.write_text(PRINTS)
    result = run("", way, command=(str(script),))
    assert result.status == 0
    for text, word in ((result.out, "worker"), (result.err, "error")):
        assert sorted(text.splitlines()) == sorted(line.format(word) for line in EXPECTED)


LONG = """
import fanmap, multiprocessing, sys
def work(x):
    for k in range(5):
        for stream in (sys.stdout, sys.stderr):
            print("abcdefgh"[x % 8] * int(sys.argv[2]), file=stream)
if __name__ == "__main__":
    context = None if sys.argv[1] == "template" else multiprocessing.get_context(sys.argv[1])
    with fanmap.ProcessPoolExecutor(4, context) as pool:
        list(pool.map(work, range(40)))
"""


@pytest.mark.parametrize("size", [5000, 200_000])
@pytest.mark.parametrize("way", ["template", "fork"])
@pytest.mark.parametrize("into", ["pipes", "one pipe", "file"])
def test_long_lines_do_not_mix_either(into: str, way: str, size: int, tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(LONG)
    line = [sys.executable, str(script), way, str(size)]
    with open(tmp_path / "out", "w+b") as file:
        out, err = {"pipes": (PIPE, PIPE), "one pipe": (PIPE, STDOUT), "file": (file, STDOUT)}[into]
        done = subprocess.run(line, stdin=DEVNULL, stdout=out, stderr=err, timeout=LIMIT, check=True)
        file.seek(0)
        texts = {"pipes": [done.stdout, done.stderr], "one pipe": [done.stdout], "file": [file.read()]}[into]
    for text in texts:
        whole = [line for line in text.split(b"\n") if len(line) == size and len(set(line)) == 1]
        assert len(whole) == 400 / len(texts) == text.count(b"\n")


def test_a_line_is_out_before_its_task_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    out = good("""
        import fanmap, os
        def work(x):
            print("line", x)
            os.write(1, b"after\\n")
            os._exit(3)
        with fanmap.ProcessPoolExecutor(1) as pool:
            assert pool.submit(work, 1).exception(60).exitcode == 3
    """)
    assert out == "line 1\nafter\n"


# What the next tests run: prints by Python and by C, on both streams.
SPEAKS = """
import contextlib, ctypes, fanmap, io, os, sys, threading
def speak(x):
    print("print", x)
    os.write(1, b"write %d\\n" % x)
    ctypes.CDLL(None).printf(b"printf %d\\n", x)
    print("error", x, file=sys.stderr)
    return x
def said(x, out):
    return {f"print {x}", f"write {x}", f"printf {x}"} <= set(out.getvalue().splitlines())
"""


def test_a_warm_pool_writes_where_sys_stdout_goes_when_the_map_is_called() -> None:
    result = run(f"""{SPEAKS}
assert list(fanmap.map(speak, [1], executor="processes")) == [1]
out, err = io.StringIO(), io.StringIO()
with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
    for result in fanmap.map(speak, range(2, 20), executor="processes"):
        # What a task wrote is there before its result.
        assert said(result, out) and f"error {{result}}\\n" in err.getvalue()
assert list(fanmap.map(speak, [20], executor="processes")) == [20]
assert len(out.getvalue().splitlines()) == 3 * 18
""")
    assert (result.status, result.err) == (0, "error 1\nerror 20\n")
    said = "".join(f"print {x}\nwrite {x}\nprintf {x}\n" for x in (1, 20))
    assert result.out == said


def test_what_a_call_wrote_is_there_before_its_future_tells_of_its_end() -> None:
    good(f"""{SPEAKS}
import asyncio
out = io.StringIO()
def check(future):
    seen.append(said(future.result(), out))
seen = []
async def main():
    for x in range(20, 30):
        assert await asyncio.get_running_loop().run_in_executor(pool, speak, x) == x
        seen.append(said(x, out))
with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
    with fanmap.ProcessPoolExecutor(2) as pool:
        for future in [pool.submit(speak, x) for x in range(10)]:
            check(future)
        for x in range(10, 20):
            pool.submit(speak, x).add_done_callback(check)
        asyncio.run(main())
assert seen == [True] * 30, seen
""")


def test_the_last_words_of_a_worker_are_there_before_its_death_is_told() -> None:
    good("""
        import contextlib, ctypes, fanmap, io, os, sys
        def die(how):
            print("last line")
            os.write(1, b"and half a line")
            if how == "exit":
                os._exit(3)
            ctypes.string_at(0)
        for how in ("exit", "crash"):
            out, err = io.StringIO(), io.StringIO()
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                (failure,) = fanmap.map(die, [how], on_error="return", executor="processes")
                assert isinstance(failure.error, fanmap.WorkerCrashed)
                assert out.getvalue() == "last line\\nand half a line\\n", out.getvalue()
            assert ("Segmentation fault" in err.getvalue()) == (how == "crash"), err.getvalue()
    """)


def test_a_tagged_line_says_which_worker_wrote_it_and_lines_stay_whole() -> None:
    good("""
        import contextlib, fanmap, io, os
        def speak(x):
            for part in range(20):
                os.write(1, b"%d %d " % (fanmap.worker_index(), x))
                os.write(1, b"." * 100 + b"%d\\n" % part)
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            fanmap.for_each(speak, range(100), workers=4, tag_output=True)
        lines = out.getvalue().splitlines()
        assert len(lines) == 2000
        parts = {}
        for line in lines:
            tag, worker, index, x, part = line.replace("]", "").split()
            assert tag == "[worker" and worker == index
            parts.setdefault(x, []).append(part)
        assert set(map(tuple, parts.values())) == {tuple("." * 100 + str(part) for part in range(20))}
    """)


def test_tags_can_be_asked_of_an_executor_and_need_no_redirect() -> None:
    out = good("""
        import fanmap
        def speak(text):
            print(text)
        with fanmap.ProcessPoolExecutor(1, tag_output=True) as pool:
            pool.submit(speak, "one\\n\\nthree").result()
            list(pool.map(speak, ["four"]))
    """)
    assert out == "[worker 0] one\n[worker 0] \n[worker 0] three\n[worker 0] four\n"


@pytest.mark.parametrize("way", ["template", "fork", "forkserver", "spawn"])
def test_what_an_initializer_writes_is_piped_with_every_start_method(way: str, tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text("""
import contextlib, fanmap, io, multiprocessing, sys
def init():
    print("ready")
def work(x):
    print("work", x)
if __name__ == "__main__":
    context = None if sys.argv[1] == "template" else multiprocessing.get_context(sys.argv[1])
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        with fanmap.ProcessPoolExecutor(1, context, initializer=init) as pool:
            pool.submit(work, 1).result()
            assert out.getvalue() == "ready\\nwork 1\\n", out.getvalue()
""")
    good("", way, command=(str(script),))


def test_workers_are_heard_while_the_program_holds_the_interpreter_lock(tmp_path: Path) -> None:
    good(
        """
        import contextlib, ctypes, fanmap, io, os, sys
        def speak(name):
            print("." * 1_000_000)  # many times what a pipe holds
            with open(name, "wb", 0) as done:
                done.write(b"x")
        os.mkfifo(sys.argv[1])
        done = os.open(sys.argv[1], os.O_RDWR)
        out = io.StringIO()
        with contextlib.redirect_stdout(out), fanmap.ProcessPoolExecutor(1) as pool:
            future = pool.submit(speak, sys.argv[1])
            # Waits without giving the lock away.
            assert ctypes.PyDLL(None).read(done, ctypes.create_string_buffer(1), 1) == 1
            future.result()
        assert out.getvalue() == "." * 1_000_000 + "\\n"
        """,
        str(tmp_path / "done"),
    )


def test_a_stuck_stream_holds_up_no_result() -> None:
    good("""
        import contextlib, fanmap, io, threading
        def speak(x):
            print("line", x)
            return x
        class Stuck(io.StringIO):
            def write(self, text):
                if threading.current_thread().name == "fanmap-output":
                    entered.set()
                    released.wait()
                return super().write(text)
        entered, released = threading.Event(), threading.Event()
        def hold(name):
            print("held")
            open(name).close()
        out = Stuck()
        with contextlib.redirect_stdout(out), fanmap.ProcessPoolExecutor(1) as pool:
            import os, tempfile
            with tempfile.TemporaryDirectory() as directory:
                gate = directory + "/gate"
                os.mkfifo(gate)
                held = pool.submit(hold, gate)
                entered.wait()  # nobody asks for results, so the output's own thread writes, and is stuck
                open(gate, "w").close()
                assert held.result() is None
            assert list(pool.map(speak, range(50))) == list(range(50))
            released.set()
        assert out.getvalue() == "held\\n" + "".join(f"line {x}\\n" for x in range(50))
    """)


def test_much_output_through_a_slow_stream_comes_whole_and_in_order() -> None:
    good("""
        import contextlib, fanmap, io
        def speak(x):
            for part in range(400):
                print(x, part, "." * 1000)
        class Slow(io.StringIO):
            def write(self, text):
                sum(range(10_000))
                return super().write(text)
        out = Slow()
        with contextlib.redirect_stdout(out):
            fanmap.for_each(speak, range(30), workers=3, executor="processes")
        parts = {}
        for line in out.getvalue().splitlines():
            x, part, dots = line.split()
            assert len(dots) == 1000
            parts.setdefault(x, []).append(int(part))
        assert len(parts) == 30 and set(map(tuple, parts.values())) == {tuple(range(400))}
    """)


def test_a_program_that_forks_leaves_its_childs_output_and_its_own_alone() -> None:
    good("""
        import contextlib, fanmap, io, os, traceback
        def speak(x):
            print("line", x)
            return x
        def opened():
            return {fd for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")}
        out, before = io.StringIO(), opened()
        with contextlib.redirect_stdout(out), fanmap.ProcessPoolExecutor(1) as pool:
            assert pool.submit(speak, 1).result() == 1
            late = pool.submit(speak, 2)
            fanmap.wait([late])
            pid = os.fork()
            if pid == 0:
                try:
                    assert {os.readlink(f"/proc/self/fd/{fd}") for fd in opened() - before} == {"/dev/null"}
                    assert late.result() == 2
                    os._exit(0)
                except BaseException:
                    traceback.print_exc()
                    os._exit(1)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
            assert pool.submit(speak, 3).result() == 3
        assert out.getvalue() == "line 1\\nline 2\\nline 3\\n"
    """)


def test_tags_and_logs_are_refused_where_there_are_no_worker_processes() -> None:
    for option in ("tag_output", "forward_logging"):
        with pytest.raises(ValueError, match=f"{option}="):
            fanmap.map(abs, [1], executor="threads", **{option: True})  # type: ignore[call-overload]


def test_what_a_map_asked_for_its_output_holds_though_another_call_comes_between() -> None:
    good("""
        import contextlib, fanmap, functools, io
        class Submits:
            def __reduce__(self):
                pool.submit(abs, -1)
                return int, (7,)
        def say(seven, x):
            print("line", x)
            return x
        out = io.StringIO()
        with fanmap.ProcessPoolExecutor(1) as pool:
            for x in range(20):
                results = fanmap.map(functools.partial(say, Submits()), [x], executor=pool, tag_output=True)
                with contextlib.redirect_stdout(out):
                    assert next(results) == x and f"[worker 0] line {x}\\n" in out.getvalue()
    """)
