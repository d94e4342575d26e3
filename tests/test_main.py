"""The user's `__main__` in workers: whatever is defined there works, as it is at the call, and without a guard."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from _scripts import Terminal, good, run

METHODS = ["fork", "forkserver", "spawn"]


def write(directory: Path, code: str) -> str:
    path = directory / "program.py"
    path.write_text(textwrap.dedent(code))
    return str(path)


def script(directory: Path, code: str, *args: str) -> str:
    """What a script says that must end well."""
    return good("", *args, command=(write(directory, code),))


def test_whatever_main_defines_can_be_called() -> None:
    good("""
        import collections, dataclasses, enum, fanmap, functools, typing

        class Colour(enum.Enum):
            RED = 1
            @property
            def next(self):
                return Colour.BLUE
            BLUE = 2

        Pair = collections.namedtuple("Pair", "a b")

        class Typed(typing.NamedTuple):
            a: int

        @dataclasses.dataclass(frozen=True, slots=True)
        class Point:
            x: int

        class Base:
            limit = 10
            def __init__(self, k): self.k = k
            def __eq__(self, other): return type(self) is type(other) and self.k == other.k
            __hash__ = None
            def up(self, by): return type(self)(self.k + by)
            @classmethod
            def make(cls, k): return cls(k)
            @staticmethod
            def double(k): return 2 * k
            def __call__(self, x): return self.k * x

        class Derived(Base):
            def up(self, by): return super().up(by + 1)
            class Inner:
                def six(self): return 6

        @functools.lru_cache
        def cached(x): return x + 1

        def decorate(f):
            @functools.wraps(f)
            def wrapper(*args): return f(*args) + 1
            return wrapper

        @decorate
        def decorated(x): return x

        def even(n): return n == 0 or odd(n - 1)
        def odd(n): return n != 0 and even(n - 1)

        def numbers(n): return list(generate(n))
        def generate(n): yield from range(n)

        def keywords(a, /, b, *c, d=4, **e): return a, b, c, d, e

        def identity(x): return x

        with fanmap.ProcessPoolExecutor(2) as pool:
            def call(f, /, *args, **kwargs): return pool.submit(f, *args, **kwargs).result(60)
            assert call(identity, Colour.RED) is Colour.RED
            assert call(lambda c: c.next, Colour.RED) is Colour.BLUE
            assert type(call(Pair, 1, 2)) is Pair and type(call(Typed, 1)) is Typed
            assert call(identity, [Point(1), {"p": Point(2)}]) == [Point(1), {"p": Point(2)}]
            assert call(Derived(1).up, 2) == Derived(4)
            assert call(Derived.make, 3) == Derived(3) and type(call(Derived, 3)) is Derived
            assert call(Derived.double, 3) == 6 and call(Derived(3), 5) == 15
            assert call(Derived.Inner().six) == 6
            assert call(cached, 1) == 2 and call(decorated, 1) == 2
            assert call(even, 10) is True and call(numbers, 3) == [0, 1, 2]
            assert call(keywords, 1, 2, 3, d=5, a=6) == (1, 2, (3,), 5, {"a": 6})
            assert call(functools.partial(keywords, 1, d=7), 2) == (1, 2, (), 7, {})
            assert call(identity, Base) is Base and call(identity, even)(4) is True
    """)


def test_an_exception_of_main_arrives_as_the_parents_own_class() -> None:
    good("""
        import fanmap
        class Mine(Exception):
            def __init__(self, code, *, why):
                super().__init__(code)
                self.why = why
            def __reduce__(self):
                return _mine, (self.args[0], self.why)
        def _mine(code, why): return Mine(code, why=why)
        def fail(x): raise Mine(x, why="because")
        try:
            list(fanmap.map(fail, [7], executor="processes"))
        except Mine as error:
            assert error.args == (7,) and error.why == "because"
            assert "in fail" in str(error.__cause__)
        else:
            raise AssertionError
    """)


def test_what_changed_between_two_calls_is_as_it_is_at_the_second() -> None:
    good("""
        import fanmap
        table = {"k": 1}
        scale = 1
        def work(x, add=0): return x * scale + table["k"] + add
        class Thing:
            factor = 1
            def __init__(self): self.k = 1
            def work(self, x): return x * self.k * self.factor
        thing = Thing()
        def closure():
            held = [0]
            def work(x): return x + held[0]
            return work, held
        inner, held = closure()
        def helper(x): return x
        def through(x): return helper(x)

        with fanmap.ProcessPoolExecutor(1) as pool:
            def call(f, *args): return pool.submit(f, *args).result(60)
            assert (call(work, 2), call(thing.work, 2), call(inner, 2), call(through, 2)) == (3, 2, 2, 2)
            scale = 10
            assert call(work, 2) == 21
            table["k"] = 5  # in place
            assert call(work, 2) == 25
            work.__defaults__ = (100,)
            assert call(work, 2) == 125
            thing.k = 7
            assert call(thing.work, 2) == 14
            Thing.factor = 2
            assert call(thing.work, 2) == 28
            def new(self, x): return -x
            Thing.work = new
            assert call(thing.work, 2) == -2
            held[0] = 9
            assert call(inner, 2) == 11
            def helper(x): return x + 1000
            assert call(through, 2) == 1002
            del helper
            assert type(call(lambda: "helper" in globals())) is bool
            assert type(pool.submit(through, 2).exception(60)) is NameError
    """)


def test_a_map_uses_the_function_as_it_was_at_the_call() -> None:
    good("""
        import fanmap
        k = 1
        def work(x): return x + k
        results = fanmap.map(work, range(100), buffersize=1, executor="processes")
        first = next(results)
        k = 1000
        assert [first, *results] == list(range(1, 101))
        assert list(fanmap.map(work, [0], executor="processes")) == [1000]
    """)


NOTEBOOK = """
import fanmap, __main__, linecache, textwrap
def cell(number, code):
    code = textwrap.dedent(code)
    name = f"<cell {number}>"
    linecache.cache[name] = len(code), None, code.splitlines(True), name
    exec(compile(code, name, "exec"), __main__.__dict__)
"""


def test_cells_of_a_notebook_can_be_run_again() -> None:
    good(NOTEBOOK + textwrap.dedent('''
        cell(1, """
            class Point:
                def __init__(self, x): self.x = x
                def kind(self): return "old"
            def work(x): return Point(x + k)
            def ask(point): return point.kind(), type(point) is Point
            k = 1
        """)
        first, = fanmap.map(work, [1], executor="processes")
        assert type(first) is Point and first.x == 2
        old = Point
        cell(2, """
            class Point:
                def __init__(self, x): self.x = -x
                def kind(self): return "new"
            k = 10
        """)
        second, = fanmap.map(work, [1], executor="processes")
        assert type(second) is Point and type(second) is not old and second.x == -11
        assert list(fanmap.map(ask, [first, second], executor="processes")) == [("old", False), ("new", True)]
    '''))  # fmt: skip


def test_a_traceback_from_a_notebooks_cell_names_the_cell() -> None:
    good(NOTEBOOK + textwrap.dedent("""
        cell(3, "def bad(x): return 1 / x")
        try:
            list(fanmap.map(bad, [0], executor="processes"))
        except ZeroDivisionError as error:
            assert "<cell 3>" in str(error.__cause__), error.__cause__
        else:
            raise AssertionError
    """))  # fmt: skip


INITIALIZED = """
    import fanmap, multiprocessing, os, sys
    model = None
    def init(value):
        global model
        model = value
    def work(x):
        return model + x
    if __name__ == "__main__":
        context = multiprocessing.get_context(sys.argv[1]) if sys.argv[1] else None
        with fanmap.ProcessPoolExecutor(2, context, init, (10,)) as pool:
            assert [f.result(60) for f in [pool.submit(work, x) for x in range(3)]] == [10, 11, 12]
            assert list(pool.map(work, range(9))) == list(range(10, 19))
        assert model is None
"""


@pytest.mark.parametrize("method", ["", *METHODS])
def test_a_work_function_reads_what_the_initializer_set(tmp_path: Path, method: str) -> None:
    script(tmp_path, INITIALIZED, method)


def test_a_replaced_worker_is_initialized_too(tmp_path: Path) -> None:
    script(tmp_path, """
        import fanmap, os
        def init(value):
            global model
            model = value
        def work(x):
            return model + x, os.getpid()
        with fanmap.ProcessPoolExecutor(1, None, init, (10,), max_tasks_per_child=1) as pool:
            seen = list(pool.map(work, range(3)))
        assert [value for value, _ in seen] == [10, 11, 12]
        assert len({pid for _, pid in seen}) == 3
    """)  # fmt: skip


def test_fork_inherits_the_state_as_of_the_first_use(tmp_path: Path) -> None:
    script(tmp_path, """
        import fanmap, multiprocessing, os
        state = "made"
        def look(): return __name__, state
        pool = fanmap.ProcessPoolExecutor(2, multiprocessing.get_context("fork"))
        state = "used"
        assert pool.submit(look).result(60) == ("__main__", "used")
        state = "later"
        assert pool.submit(look).result(60) == ("__main__", "used")
        # So does the replacement of a worker that died.
        assert pool.submit(os._exit, 3).exception(60).exitcode == 3
        assert pool.submit(look).result(60) == ("__main__", "used")
        pool.shutdown()
    """)  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_a_lock_of_the_context_passes_in_initargs(tmp_path: Path, method: str) -> None:
    out = script(tmp_path, """
        import fanmap, multiprocessing, os, sys
        def init(a_lock, a_value):
            global lock, value
            lock, value = a_lock, a_value
        def work(_):
            with lock:
                value.value += 1
        if __name__ == "__main__":
            context = multiprocessing.get_context(sys.argv[1])
            value = context.Value("i", 0, lock=False)
            with fanmap.ProcessPoolExecutor(2, context, init, (context.Lock(), value)) as pool:
                assert list(pool.map(work, range(200))) == [None] * 200
            print(value.value)
    """, method)  # fmt: skip
    assert out == "200\n"


def test_a_script_without_a_guard_is_told_so_under_spawn(tmp_path: Path) -> None:
    path = write(tmp_path, """
        import fanmap, multiprocessing
        with fanmap.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            pool.submit(abs, -1).result(60)
    """)  # fmt: skip
    result = run("", command=(path,))
    assert result.status == 1
    assert "BrokenProcessPool" in result.err and "__main__" in result.err, result.err


def test_a_module_run_by_name_works_as_a_script_does(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "other.py").write_text("k = 5\ndef add(x): return x + k\n")
    (package / "__main__.py").write_text(textwrap.dedent("""
        import fanmap
        from . import other
        from .other import add
        def work(x): return add(x) + other.k
        print(*fanmap.map(work, range(3), executor="processes"), *fanmap.map(add, range(3), executor="processes"))
    """))  # fmt: skip
    code = """
        import runpy, sys
        sys.path.insert(0, sys.argv.pop(1))
        runpy.run_module("package", run_name="__main__", alter_sys=True)
    """
    assert good(code, str(tmp_path)) == "10 11 12 5 6 7\n"
    # And from the directory itself.
    enter = f"import os, sys; os.chdir({str(tmp_path)!r}); os.execv(sys.executable, [sys.executable, '-m', 'package'])"
    assert good(enter) == "10 11 12 5 6 7\n"


def test_the_interpreters_flags_are_the_workers_too() -> None:
    code = textwrap.dedent("""
        import fanmap, sys
        assert sys.flags.optimize == 1 and sys.flags.dev_mode and sys.flags.bytes_warning == 1
        look = lambda: (sys.flags.optimize, sys.flags.dev_mode, sys.flags.bytes_warning)
        with fanmap.ProcessPoolExecutor(1) as pool:
            print(*pool.submit(look).result(60))
    """)
    assert good("", command=("-O", "-X", "dev", "-b", "-c", code)) == "1 True 1\n"


def test_a_worker_that_starts_later_gets_the_surroundings_of_then(tmp_path: Path) -> None:
    good("""
        import fanmap, os, sys
        def look(): return os.getcwd(), os.environ.get("WHEN"), sys.path[-1], sys.argv[-1]
        sys.path.append("")
        with fanmap.ProcessPoolExecutor(1, max_tasks_per_child=1) as pool:
            for when in map(str, range(10)):
                os.chdir(("/", sys.argv[1])[int(when) % 2])
                os.environ["WHEN"] = sys.path[-1] = sys.argv[2] = when
                assert pool.submit(look).result(60) == look(), when
    """, str(tmp_path), "")  # fmt: skip


def test_a_module_beside_the_script_is_found_by_workers(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("state = 'fresh'\ndef look(_): return state\n")
    out = script(tmp_path, """
        import beside, fanmap, os
        os.chdir("/")
        beside.state = "changed"  # state that a module got at run time stays here
        print(*fanmap.map(beside.look, [1], executor="processes"))
    """)  # fmt: skip
    assert out == "fresh\n"


def test_a_fresh_worker_has_loaded_nothing_that_a_bare_interpreter_and_pickle_do_not() -> None:
    out = good("""
        import fanmap
        with fanmap.ProcessPoolExecutor(1) as pool:
            print(*pool.submit(eval, "sorted(__import__('sys').modules)").result(60))
    """)
    bare = good("import _signal, pickle, sys, warnings; print(*sorted(sys.modules))")
    allowed = {"fanmap", *(f"fanmap.{name}" for name in (
        "_classes", "_codec", "_inherit", "_late", "_main", "_native", "_place", "_raw", "_reference", "_remote",
        "_template", "_worker", "_lines"
    ))}  # fmt: skip
    # `_lines`, and for it `fcntl`, since the output of this script is a pipe.
    beside = {"atexit", "__future__", "errno", "faulthandler", "fcntl"}
    assert set(out.split()) - set(bare.split()) - allowed <= beside


def test_a_filter_for_a_modules_warnings_imports_the_module_for_nobody() -> None:
    """numpy sets such filters when it is imported; a worker that imported it for them would start slow."""
    good("""
        import fanmap, sys, warnings
        import numpy
        warnings.simplefilter("error", numpy.exceptions.RankWarning)
        def warn(_):
            import numpy
            try:
                warnings.warn("rank", numpy.exceptions.RankWarning)
            except numpy.exceptions.RankWarning:
                return "raised"
        with fanmap.ProcessPoolExecutor(1) as pool:
            assert not pool.submit(eval, "'numpy' in __import__('sys').modules").result(60)
            assert pool.submit(warn, 1).result(60) == "raised"
    """)


def test_workers_draw_different_random_numbers() -> None:
    good("""
        import fanmap, os, threading
        import numpy, random
        random.seed(1); numpy.random.seed(1)
        def draw(barrier_name):
            import numpy, os, random
            with open(barrier_name, "rb") as gate:  # held until both workers have one
                gate.read()
            return os.getpid(), random.random(), numpy.random.random()
        import tempfile
        directory = tempfile.mkdtemp()
        gates = [f"{directory}/{k}" for k in range(2)]
        for gate in gates:
            os.mkfifo(gate)
        for mp_context in (None, "fork"):
            if mp_context:
                import multiprocessing
                mp_context = multiprocessing.get_context(mp_context)
            with fanmap.ProcessPoolExecutor(2, mp_context) as pool:
                futures = [pool.submit(draw, gate) for gate in gates]
                # Opening returns once a worker has opened the other side: both run.
                writers = [open(gate, "wb", 0) for gate in gates]
                for writer in writers:
                    writer.close()
                seen = [future.result(60) for future in futures]
                for column in zip(*seen):
                    assert len(set(column)) == 2, (mp_context, seen)
        import shutil
        shutil.rmtree(directory)
    """)


def test_the_prompt_works_on_a_terminal() -> None:
    with Terminal("-q") as prompt:
        prompt.until(">>> ")
        for line in ("import fanmap", "def f(x): return x + k", "", "k = 1"):
            prompt.type(line)
        prompt.type("print('got', list(fanmap.map(f, range(3), executor='processes')))")
        prompt.until("got [1, 2, 3]")
        prompt.type("class P: pass")
        prompt.type("")
        prompt.type("print('same', type(next(fanmap.map(lambda _: P(), [0], executor='processes'))) is P)")
        prompt.until("same True")
        prompt.type("exit()")
        prompt.rest()
    assert prompt.program.returncode == 0


def test_code_interact_in_a_module_other_than_main_works() -> None:
    console = textwrap.dedent("""
        import code
        console = code.InteractiveConsole({"__name__": "__console__", "__doc__": None})
        for line in ("import fanmap", "def f(x): return x + k", "", "k = 1",
                     "print(*fanmap.map(f, range(3), executor='processes'))"):
            console.push(line)
    """)
    assert good(console) == "1 2 3\n"


def test_it_works_with_this_very_interpreter() -> None:
    # Each program above ran under it; so do the workers.
    out = good("import fanmap, sys; print(*fanmap.map(lambda _: sys.executable, [0], executor='processes'))")
    assert out.strip() == sys.executable


def test_relative_imports_work_in_functions_of_a_packages_main(tmp_path: Path) -> None:
    package = tmp_path / "pack"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "helper.py").write_text("def double(x): return 2 * x\n")
    (package / "run.py").write_text(
        "from fanmap import ProcessPoolExecutor\n"
        "def work(x):\n"
        "    from .helper import double\n"
        "    return double(x)\n"
        "with ProcessPoolExecutor(1) as pool:\n"
        "    print(pool.submit(work, 21).result())\n"
    )
    done = subprocess.run([sys.executable, "-m", "pack.run"], cwd=tmp_path, capture_output=True, text=True, timeout=50)
    assert (done.stdout, done.stderr) == ("42\n", "")


def test_whatever_a_function_rests_on_each_submit_sees_it_as_it_is_then() -> None:
    """A pickle is used again only if nothing can have changed: each of these changes something, and changes it back."""
    good("""
        import fanmap, math, os.path

        number = 1
        numbers = [1]
        module = math

        def plain(x=1): return x
        def reads(): return number
        def calls(): return reads() + plain()
        def lists(): return list(numbers)
        def uses(): return module.__name__
        def noted() -> int: return 1
        def other(): return "other"

        with fanmap.ProcessPoolExecutor(1) as pool:
            def same(*functions):
                for function in (*functions, *functions):
                    assert pool.submit(function).result(60) == function(), function

            everything = plain, reads, calls, lists, uses, noted
            same(*everything)
            for _ in range(2):
                number += 1; same(*everything)
                number -= 1; same(*everything)
                numbers.append(2); same(*everything)
                numbers.pop(); same(*everything)
                plain.__defaults__ = (3,); same(*everything)
                plain.__defaults__ = (1,); same(*everything)
                plain.__kwdefaults__, plain.tag = {}, 1; same(*everything)
                del plain.tag
                module = os.path; same(*everything)
                module = math; same(*everything)
                kept, plain.__code__ = plain.__code__, other.__code__
                same(plain, lists)
                plain.__code__ = kept; same(*everything)
                kept, reads = reads, lambda: 40; same(*everything)
                reads = kept; same(*everything)
    """)
