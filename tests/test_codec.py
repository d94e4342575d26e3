"""What the codec promises, each property proved by a real program and a real worker process.

Every test is the text of a program, run as a script so that its functions live in a true `__main__`. It talks to a
worker that knows nothing of it but what the codec's bytes say.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import fanmap
import pytest

PACKAGE = str(Path(next(iter(fanmap.__path__))).parent)

HARNESS = '''
"""A worker at the other end of two pipes: function and arguments go, a value or an exception comes."""
import os, struct, subprocess, sys

def read(file):
    size, = struct.unpack("<Q", file.read(8))
    return file.read(size)

def write(file, data):
    file.write(struct.pack("<Q", len(data)) + data)
    file.flush()

def serve(inp, out, encoder):
    from fanmap._codec import decode
    while True:
        head = inp.read(1)
        if not head:
            return
        function, args = read(inp), read(inp)
        try:
            kind, reply = b"v", encoder.encode(decode(function)(*decode(args)), "the result")
        except BaseException as error:
            kind, reply = b"e", encoder.encode_exception(error)
        out.write(kind)
        write(out, reply)

def start(main_file=None):
    """In the worker: become one."""
    from fanmap import _codec, _main
    inp, out = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    policy = _codec.BY_VALUE
    if main_file is None:
        _main.install()
    else:
        import multiprocessing.spawn
        multiprocessing.spawn._fixup_main_from_path(main_file)
        policy = _codec.IMPORTED
    serve(inp, out, _codec.Encoder(policy, to_parent=True))

class Worker:
    """One worker. Its encoder is shared by the workers of a pool, so it may be passed in."""
    def __init__(self, encoder=None, main_file=None, pipes=None):
        from fanmap._codec import Encoder
        self.encoder = encoder or Encoder()
        if pipes is None:
            command = [sys.executable, "-c", f"import harness; harness.start({main_file!r})"]
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            pipes = self.process.stdout, self.process.stdin
        self.inp, self.out = pipes

    def send(self, function, args):
        self.out.write(b"c")
        write(self.out, function)
        write(self.out, args)

    def reply(self):
        from fanmap._codec import decode, decode_exception
        kind = self.inp.read(1)
        if kind == b"e":
            raise decode_exception(read(self.inp))
        assert kind == b"v", kind
        return decode(read(self.inp))

    def call(self, function, *args):
        self.send(self.encoder.encode_function(function), self.encoder.encode(args))
        return self.reply()

def raised(function, *args):
    try:
        function(*args)
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")
'''

HELPER = """
import functools
state = 10

def doubled(function):
    @functools.wraps(function)
    def wrapper(*args):
        return 2 * function(*args)
    return wrapper

def closure_over(value):
    return lambda: (value, state)

def show(name):
    import sys
    return vars(sys.modules["__main__"]).get(name, "absent")

def modules():
    import sys
    return sorted(sys.modules)

class Local(Exception):
    pass

def make_local():
    class Inner:
        pass
    return Inner()
"""

Run = Callable[[str], str]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a program with the harness; fails with what it printed if it fails."""

    def run_program(text: str) -> str:
        (tmp_path / "harness.py").write_text(HARNESS)
        (tmp_path / "helper.py").write_text(HELPER)
        program = tmp_path / "program.py"
        program.write_text("import sys, helper, harness\nfrom harness import *\n" + textwrap.dedent(text))
        env = {**os.environ, "PYTHONPATH": os.pathsep.join([PACKAGE, str(tmp_path)])}
        done = subprocess.run(
            [sys.executable, str(program)], env=env, capture_output=True, text=True, timeout=50, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run_program


# One namespace for `__main__`


def test_an_initializer_sets_the_global_that_a_work_function_reads(run: Run) -> None:
    run(
        """
        model = None
        def init():
            global model
            model = "loaded"
        def work(x):
            return model, x
        w = Worker()
        assert w.call(work, 0) == (None, 0)
        w.call(init)
        assert w.call(work, 1) == ("loaded", 1), "the unchanged None of the parent must not undo the initializer"
        assert model is None
        model = "rebound"
        assert w.call(work, 2) == ("rebound", 2), "a change in the parent reaches the worker"
        w.call(init)
        assert w.call(work, 3) == ("loaded", 3)
        model = None
        assert w.call(work, 4) == (None, 4)
        """
    )


def test_an_initializer_sets_a_global_that_the_parent_never_had(run: Run) -> None:
    run(
        """
        def init():
            global model
            model = "loaded"
        def work():
            return model
        w = Worker()
        w.call(init)
        assert w.call(work) == "loaded"
        assert w.call(work) == "loaded"
        model = "mine"
        assert w.call(work) == "mine"
        del model
        assert type(raised(w.call, work)) is NameError
        """
    )


def test_a_global_changed_in_place_between_two_calls_arrives_changed(run: Run) -> None:
    run(
        """
        table, same = {"a": [1]}, {"b": 1}
        def work():
            same["b"] += 1
            return table["a"], same["b"]
        w = Worker()
        assert w.call(work) == ([1], 2)
        table["a"].append(2)
        assert w.call(work) == ([1, 2], 3), "what the parent did not touch keeps what the worker did"
        """
    )


def test_globals_of_every_kind_that_the_parent_left_alone_keep_what_the_worker_did(run: Run) -> None:
    run(
        """
        import collections, dataclasses, datetime, enum, functools, random, re, weakref
        @dataclasses.dataclass
        class Node:
            name: str
            kids: list = dataclasses.field(default_factory=list)
        class Color(enum.Enum):
            RED = 1
        Pair = collections.namedtuple("Pair", "x y")
        def adder(n):
            return lambda x: x + n
        loop = Node("loop")
        loop.kids.append(loop)
        names = {
            "a": {"x", "y"}, "b": [Node("n", [Node("m")]), loop], "c": adder(3), "d": functools.partial(adder(1), 2),
            "e": Pair(1, [2]), "f": Color.RED, "g": re.compile("a"), "h": random.Random(1), "i": datetime.date.today(),
            "j": {1: Node, "k": adder}, "k": float("nan"), "l": object, "m": collections.OrderedDict(a=1), "n": (),
            "o": Node("bound").__repr__, "p": functools.lru_cache(adder(4)), "q": bytearray(b"x"), "r": 2 ** 100,
        }
        globals().update(names)
        def overwrite():
            global a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r
            a = b = c = d = e = f = g = h = i = j = k = l = m = n = o = p = q = r = "worker"
        def look():
            return [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r]
        w = Worker()
        w.call(overwrite)
        assert set(w.call(look)) == {"worker"}, w.call(look)
        p(1)
        assert set(w.call(look)) == {"worker"}, "to fill a cache is no change"
        """
    )


def test_modules_registered_with_cloudpickle_go_by_value(run: Run) -> None:
    run(
        """
        import cloudpickle
        w = Worker()
        assert w.call(helper.closure_over, 1) is not None
        assert b"_make_function" not in w.encoder.encode_function(helper.show)
        cloudpickle.register_pickle_by_value(helper)
        assert b"_make_function" in w.encoder.encode_function(helper.show)
        """
    )


def test_a_worker_that_starts_late_gets_the_values_of_now(run: Run) -> None:
    run(
        """
        rate = 1
        def init():
            global rate
            rate += 100
        def work():
            return rate
        first = Worker()
        assert first.call(work) == 1
        rate = 2
        assert first.call(work) == 2
        rate = 3
        late = Worker(first.encoder)
        assert late.call(work) == 3
        late.call(init)
        assert late.call(work) == 103
        assert first.call(work) == 3
        rate = 4
        assert late.call(work) == first.call(work) == 4
        """
    )


def test_equal_values_of_different_types_are_a_change(run: Run) -> None:
    run(
        """
        import math
        value = 1
        def work():
            return value
        w = Worker()
        for value in (1, 1.0, True, 0.0, -0.0, "1", b"1", None):
            found = w.call(work)
            assert repr(found) == repr(value), (found, value)
        value = math.nan
        assert math.isnan(w.call(work))
        """
    )


def test_functions_that_call_each_other_find_each_other(run: Run) -> None:
    run(
        """
        def even(n):
            return True if n == 0 else odd(n - 1)
        def odd(n):
            return False if n == 0 else even(n - 1)
        class Tool:
            scale = 3
            def use(self, x):
                return helper_of_main(x) * self.scale
        def helper_of_main(x):
            return x + offset
        offset = 1
        def with_tool(tool, x):
            return tool.use(x)
        w = Worker()
        assert w.call(even, 10) is True and w.call(odd, 10) is False
        assert w.call(with_tool, Tool(), 1) == 6
        offset = 2
        assert w.call(with_tool, Tool(), 1) == 9, "a global read by a method only"
        def helper_of_main(x):
            return -x
        assert w.call(with_tool, Tool(), 1) == -3, "a function bound anew"
        """
    )


def test_the_namespace_reads_main_and_holds_nothing_of_the_worker(run: Run) -> None:
    run(
        """
        def name():
            return __name__, sorted(n for n in globals() if not n.startswith("__"))
        w = Worker()
        assert w.call(name) == ("__main__", [])
        def path():
            return __file__
        assert w.call(path) == __file__
        """
    )


def test_a_class_body_within_a_function_finds_its_globals(run: Run) -> None:
    run(
        """
        CONSTANT = 5
        def work():
            class Inner:
                value = CONSTANT
            return Inner.value
        assert Worker().call(work) == 5
        """
    )


# Functions of every kind


def test_lambdas_nested_functions_partials_and_bound_methods_run_as_they_are_at_each_call(run: Run) -> None:
    run(
        """
        import functools
        w = Worker()
        assert w.call(lambda x: x + 1, 1) == 2
        def make(step):
            def add(x):
                return x + step
            def change(to):
                nonlocal step
                step = to
            return add, change
        add, change = make(1)
        assert w.call(add, 1) == 2
        change(10)
        assert w.call(add, 1) == 11
        box = [1]
        part = functools.partial(lambda box, x: box[0] + x, box)
        assert w.call(part, 1) == 2
        box[0] = 5
        assert w.call(part, 1) == 6
        class Counter:
            def __init__(self): self.n = 1
            def get(self): return self.n
            @classmethod
            def name(cls): return cls.__name__
            @staticmethod
            def two(): return 2
        c = Counter()
        assert w.call(c.get) == 1
        c.n = 7
        assert w.call(c.get) == 7
        assert w.call(Counter.name) == "Counter" and w.call(Counter.two) == 2 and w.call(Counter).n == 1
        def defaults(x=box, *, y=box): return x, y
        box[0] = 9
        assert w.call(defaults) == ([9], [9])
        assert w.call("abc".upper) == "ABC"
        """
    )


def test_closures_that_share_a_variable_go_on_sharing_it(run: Run) -> None:
    run(
        """
        def make():
            n = 0
            def up():
                nonlocal n
                n += 1
            def get():
                return n
            def recursive(k):
                return 1 if k == 0 else k * recursive(k - 1)
            return up, get, recursive
        def work(pair):
            up, get, recursive = pair
            up(); up()
            return get(), recursive(5)
        w = Worker()
        assert w.call(work, make()) == (2, 120)
        assert w.call(make()[2], 5) == 120
        """
    )


def test_cached_and_decorated_functions_of_main_arrive(run: Run) -> None:
    run(
        """
        import functools
        @functools.cache
        def fib(n):
            return n if n < 2 else fib(n - 1) + fib(n - 2)
        @helper.doubled
        def work(x):
            return fib(x)
        w = Worker()
        assert w.call(fib, 60) == 1548008755920
        assert w.call(work, 10) == 110
        assert w.call(helper.doubled(lambda x: x), 4) == 8
        assert w.call(helper.closure_over(3)) == (3, 10), "a closure of an importable module"
        """
    )


def test_modules_and_type_variables_travel(run: Run) -> None:
    run(
        """
        import os.path, typing
        T = typing.TypeVar("T")
        class Box(typing.Generic[T]):
            def __init__(self, x: T): self.x = x
        def work(box, y: T) -> T:
            return os.path.join(box.x, y), os.path
        w = Worker()
        assert w.call(work, Box("a"), "b") == ("a/b", os.path)
        assert w.call(lambda t: t.__name__, T) == "T"
        """
    )


def test_a_function_made_in_the_worker_comes_back_and_leaves_the_parents_globals_alone(run: Run) -> None:
    run(
        """
        rate = 1
        def init():
            global rate, extra
            rate, extra = 100, 7
        def make(n):
            return lambda: (n, rate, extra)
        w = Worker()
        w.call(init)
        made = w.call(make, 5)
        assert rate == 1 and made() == (5, 1, 7)
        """
    )


def test_by_name_a_worker_imports_neither_cloudpickle_nor_multiprocessing(run: Run) -> None:
    run(
        """
        w = Worker()
        loaded = w.call(helper.modules)
        assert not {"cloudpickle", "multiprocessing", "typing", "concurrent.futures.process"} & set(loaded), loaded
        assert "cloudpickle" not in sys.modules
        """
    )


def test_reducers_registered_with_copyreg_and_multiprocessing_are_used(run: Run) -> None:
    run(
        """
        import copyreg, multiprocessing.reduction, socket, threading, os
        class Odd: pass
        copyreg.pickle(type(threading.Lock()), lambda lock: (threading.Lock, ()))
        multiprocessing.reduction.ForkingPickler.register(type(sys.implementation), lambda n: (str, ("registered",)))
        w = Worker()
        def work(lock, text):
            return lock.locked(), text
        assert w.call(work, threading.Lock(), sys.implementation) == (False, "registered")
        """
    )


# Classes


def test_a_class_of_main_is_one_class_there_and_our_own_when_it_comes_back(run: Run) -> None:
    run(
        """
        class Thing:
            made = 0
            __slots__ = ("x",)
            def __init__(self, x):
                self.x = x
                Thing.made += 1
            def __eq__(self, other):
                return type(other) is type(self) and other.x == self.x
        def work(thing):
            assert type(thing) is Thing
            new = Thing(thing.x + 1)
            return Thing.made, id(Thing), new, [new], Thing
        w = Worker()
        one = Thing(1)
        made, ident, new, [same], cls = w.call(work, one)
        assert made == 2 and type(new) is Thing and new.x == 2 and same is new and cls is Thing
        again, ident2, *_ = w.call(work, one)
        assert ident2 == ident and again == 3, "the second arrival must not reset the class"
        assert Thing.made == 1, "the worker's copy must not be applied onto ours"
        assert not hasattr(new, "__dict__")
        """
    )


def test_a_class_changed_by_its_owner_arrives_changed(run: Run) -> None:
    run(
        """
        class Config:
            rate = 1
            seen = []
            def get(self):
                return self.rate, list(self.seen)
        def work(c):
            return c.get()
        w = Worker()
        assert w.call(work, Config()) == (1, [])
        Config.rate = 2
        Config.seen.append("x")
        assert w.call(work, Config()) == (2, ["x"])
        Config.get = lambda self: "patched"
        assert w.call(work, Config()) == "patched"
        """
    )


def test_properties_methods_and_bases_of_every_kind_work_in_the_worker(run: Run) -> None:
    run(
        """
        import functools, typing
        T = typing.TypeVar("T")
        class Meta(type):
            def hello(cls): return cls.__name__
        class Base(metaclass=Meta):
            __slots__ = ("a",)
        class Box(Base, typing.Generic[T]):
            __slots__ = ("b", "__dict__")
            def __init__(self): self.a, self.b = 1, 2
            @property
            def x(self): return self.a
            @functools.cached_property
            def y(self): return self.b
            @functools.lru_cache
            def z(self): return 3
            class Inner:
                value = 4
            def __hidden(self): return 5
        def look(box):
            return box.x, box.y, box.z(), Box.Inner.value, box._Box__hidden(), type(box).hello(), Box.Inner.__qualname__
        class Row(typing.NamedTuple, typing.Generic[T]):
            a: T
        w = Worker()
        assert w.call(look, Box()) == (1, 2, 3, 4, 5, "Box", "Box.Inner")
        assert w.call(Box()._Box__hidden) == 5
        assert w.call(lambda row: row._replace(a=2), Row(1)) == Row(2)
        """
    )


def test_a_class_defined_again_is_another_class(run: Run) -> None:
    run(
        """
        def define(n):
            class Cell:
                value = n
            return Cell
        def work(a, b):
            return type(a) is type(b), a.value, b.value, a, b
        w = Worker()
        Old, New = define(1), define(2)
        same, old, new, a, b = w.call(work, Old(), New())
        assert (same, old, new) == (False, 1, 2) and type(a) is Old and type(b) is New
        """
    )


def test_enums_dataclasses_and_named_tuples_of_main_travel_both_ways(run: Run) -> None:
    run(
        """
        import dataclasses, enum, typing, abc, collections
        class Color(enum.Enum):
            RED = 1
            GREEN = 2
            ALIAS = 1
            def shout(self): return self.name + "!"
        class Perm(enum.Flag):
            R = 1
            W = 2
        class Planet(enum.Enum):
            EARTH = (5.9, 6.3)
            def __init__(self, mass, radius):
                self.mass, self.radius = mass, radius
        class Level(enum.IntEnum):
            LOW = 1
        class Kind(str, enum.Enum):
            A = "a"
        @dataclasses.dataclass(frozen=True)
        class Person:
            name: str
            born: int = 1900
            tags: list = dataclasses.field(default_factory=list)
        @dataclasses.dataclass(slots=True)
        class Slotted:
            x: int
        class Row(typing.NamedTuple):
            a: int
            b: str = "b"
            def both(self): return f"{self.a}{self.b}"
        Pair = collections.namedtuple("Pair", "x y")
        class Base(abc.ABC):
            @abc.abstractmethod
            def run(self): ...
        class Derived(Base):
            def run(self): return __class__.__name__
        @dataclasses.dataclass
        class Tree:
            kids: "list[Tree]" = dataclasses.field(default_factory=list)
        def work(c, p, planet, level, kind, person, s, row, pair, d, tree):
            assert c is Color.RED is Color.ALIAS is Color["ALIAS"] and c.shout() == "RED!"
            assert list(Color) == [c, Color.GREEN]
            assert p == Perm.R | Perm.W and planet.mass == 5.9 and level == 1 and kind == "a" and kind is Kind.A
            assert dataclasses.replace(person, born=2).born == 2 and Person("n").born == 1900
            assert dataclasses.asdict(person)["tags"] == ["t"]
            assert row.both() == "1b" and pair.x == 1 and d.run() == "Derived" and isinstance(d, Base)
            assert isinstance(tree.kids[0], Tree)
            person = dataclasses.replace(person, name="new")
            return c, p, planet, level, kind, person, s, row._replace(a=2), pair, d, tree
        args = (Color.RED, Perm.R | Perm.W, Planet.EARTH, Level.LOW, Kind.A, Person("p", 1, ["t"]), Slotted(1), Row(1),
                Pair(1, 2), Derived(), Tree([Tree()]))
        w = Worker()
        for _ in range(2):
            result = w.call(work, *args)
            assert [type(a) for a in args] == [type(r) for r in result]
            assert result[0] is Color.RED and result[2] is Planet.EARTH and result[1] == args[1]
            assert result[5] == Person("new", 1, ["t"]) and result[6] == Slotted(1) and result[7] == Row(2)
            assert Planet.EARTH.mass == 5.9
        """
    )


def test_classes_made_in_one_worker_reach_another_through_the_parent(run: Run) -> None:
    run(
        """
        def make():
            class Made:
                n = 1
            return Made()
        def look(made):
            return made.n, made
        one, two = Worker(), Worker()
        made = one.call(make)
        assert made.n == 1
        n, back = two.call(look, made)
        assert n == 1 and type(back) is type(made)
        n, back = one.call(look, made)
        assert type(back) is type(made)
        def keep():
            global kept
            kept = type(make())
            return kept
        def change():
            kept.n = 2
            return kept()
        kept_class = one.call(keep)
        assert kept_class.n == 1 and type(one.call(change)) is kept_class and kept_class.n == 2
        inner = one.call(helper.make_local)
        assert type(two.call(look.__class__.__call__, look, one.call(make))[1]).__name__ == "Made"
        assert type(inner).__qualname__ == "make_local.<locals>.Inner"
        """
    )


def test_a_definition_is_made_once_for_the_items_of_a_call(run: Run) -> None:
    run(
        """
        class Item:
            def __init__(self, n): self.n = n
            def value(self): return self.n * factor
        factor = 2
        def work(item): return item.value()
        w = Worker()
        function = w.encoder.encode_function(work)
        items = [w.encoder.encode((Item(n),)) for n in range(3)]
        for n, item in enumerate(items):
            w.send(function, item)
            assert w.reply() == n * 2
        other = Worker(w.encoder)
        other.send(function, items[2])
        assert other.reply() == 4, "each item is complete: any worker can take it"
        """
    )


# The other ways of starting workers


def test_imported_workers_take_what_main_defines_by_name_and_the_rest_by_value(run: Run) -> None:
    run(
        """
        class Thing: pass
        def work(thing): return type(thing) is Thing, thing, __name__
        if __name__ == "__main__":
            import multiprocessing
            from fanmap._codec import Encoder, IMPORTED
            w = Worker(Encoder(IMPORTED), main_file=__file__)
            assert b"make_function" not in w.encoder.encode_function(work)
            same, thing, name = w.call(work, Thing())
            assert same and type(thing) is Thing and name == "__mp_main__"
            assert w.call(lambda t: type(t) is Thing, Thing())
        """
    )


def test_forked_workers_keep_what_they_inherited_and_get_what_was_bound_since(run: Run) -> None:
    run(
        """
        import os, threading
        from fanmap._codec import Encoder, Forked
        class Thing:
            pass
        lock = threading.Lock()
        rate, other = 1, 1
        def helper_of_main():
            return "old"
        def inherited():
            return lock.locked(), rate
        policy = Forked()
        to_child, to_parent = os.pipe(), os.pipe()
        if os.fork() == 0:
            inp, out = os.fdopen(to_child[0], "rb"), os.fdopen(to_parent[1], "wb")
            os.close(to_child[1])
            harness.serve(inp, out, Encoder(policy, to_parent=True))
            os._exit(0)
        os.close(to_child[0])
        os.close(to_parent[1])
        w = Worker(Encoder(policy), pipes=(os.fdopen(to_parent[0], "rb"), os.fdopen(to_child[1], "wb")))
        assert w.call(inherited) == (False, 1), "a lock is inherited, not sent"
        rate = 2
        def work(thing):
            return rate, other, helper_of_main(), lock.locked(), type(thing) is Thing, thing
        *got, thing = w.call(work, Thing())
        assert got == [2, 1, "old", False, True] and type(thing) is Thing
        old = helper_of_main
        def helper_of_main():
            return "new"
        assert w.call(work, Thing())[2] == "new"
        helper_of_main = old
        assert w.call(work, Thing())[2] == "old", "back to the inherited one"
        w.out.close()
        os.wait()
        """
    )


# Exceptions


def test_an_exception_keeps_type_args_notes_attributes_and_chain(run: Run) -> None:
    run(
        """
        from concurrent.futures.process import _RemoteTraceback as RemoteTraceback
        class Mine(ValueError):
            pass
        def work():
            try:
                try:
                    {}["missing"]
                except KeyError as key:
                    raise OSError(2, "no file", "name") from key
            except OSError:
                error = Mine("a", 1)
                error.add_note("a note")
                error.extra = {"k": 1}
                raise error from ZeroDivisionError("deep")
        error = raised(Worker().call, work)
        assert type(error) is Mine and error.args == ("a", 1) and error.__notes__ == ["a note"], error
        assert error.extra == {"k": 1}
        remote = error.__cause__
        assert type(remote) is RemoteTraceback and 'raise error from ZeroDivisionError("deep")' in remote.tb
        assert str(remote) == remote.tb and remote.tb.startswith('\\n\"\"\"\\n') and "a note" in remote.tb
        assert "_codec.py" not in remote.tb
        assert type(remote.__cause__) is ZeroDivisionError and remote.__cause__.args == ("deep",)
        context = error.__context__
        assert type(context) is FileNotFoundError and context.filename == "name" and type(context.__cause__) is KeyError
        assert error.__suppress_context__ is True
        """
    )


def test_an_exception_that_cannot_travel_arrives_as_a_substitute(run: Run) -> None:
    run(
        """
        import threading
        from concurrent.futures.process import _RemoteTraceback as RemoteTraceback
        from fanmap._remote import RemoteError
        class Wants(Exception):
            def __init__(self, code, text):
                super().__init__(f"{code}: {text}")
        class Doubles(Exception):
            def __init__(self, name):
                super().__init__(f"hello {name}")
        class Rude(Exception):
            def __str__(self):
                raise RuntimeError("no text")
            def __reduce__(self):
                raise RuntimeError("no pickle")
        def wants():
            error = Wants(1, "one")
            error.add_note("kept")
            raise error from ValueError("why")
        def holds():
            error = ValueError("lock")
            error.lock = threading.Lock()
            raise error
        def doubles():
            raise Doubles("bob")
        def rude():
            raise Rude
        def quits():
            raise SystemExit(3)
        w = Worker()
        error = raised(w.call, wants)
        assert type(error) is RemoteError and error.type_name == "__main__.Wants" and error.message == "1: one"
        assert "could not be unpickled" in str(error) and error.__notes__ == ["kept"]
        assert "raise error from" in error.__cause__.tb and type(error.__cause__.__cause__) is ValueError
        error = raised(w.call, holds)
        assert error.type_name == "builtins.ValueError" and "could not be pickled" in str(error), error
        assert "lock" in error.reason
        error = raised(w.call, doubles)
        assert type(error) is Doubles and error.args == ("hello bob",)
        error = raised(w.call, rude)
        assert error.type_name == "__main__.Rude" and "raise Rude" in error.__cause__.tb
        error = raised(w.call, quits)
        assert type(error) is SystemExit and error.code == 3
        """
    )


def test_a_circle_of_causes_and_a_broken_report_still_decode(run: Run) -> None:
    run(
        """
        from concurrent.futures.process import _RemoteTraceback as RemoteTraceback
        from fanmap._remote import RemoteError, decode_exception, encode_exception
        a, b = ValueError("a"), ValueError("b")
        a.__context__, b.__context__ = b, a
        got = decode_exception(encode_exception(a))
        assert type(got) is ValueError and got.__context__.args == ("b",) and got.__context__.__context__ is got
        assert type(decode_exception(b"rubbish")) is RemoteError
        group = ExceptionGroup("many", [ValueError(1), KeyError("k")])
        assert [type(e) for e in decode_exception(encode_exception(group)).exceptions] == [ValueError, KeyError]
        import pickle
        again = pickle.loads(pickle.dumps(RemoteError("a.B", "text", "why")))
        assert (again.type_name, again.message, str(again)) == ("a.B", "text", "a.B: text (why)")
        assert pickle.loads(pickle.dumps(RemoteTraceback("tb"))).tb == "tb"
        """
    )


# Errors


def test_what_cannot_be_pickled_is_named_with_its_place(run: Run) -> None:
    run(
        """
        import functools, pickle, threading
        lock = threading.Lock()
        state = {"deep": [1, lock]}
        def uses_global(x): return lock
        def uses_deep(x): return state
        def calls(x): return uses_global(x)
        def make():
            held = threading.Lock()
            return lambda: held
        class Holder:
            def __init__(self): self.guard = threading.Lock()
            def work(self): pass
        e = harness.Worker().encoder
        def text(encode, obj, *more):
            error = raised(encode, obj, *more)
            assert type(error) is pickle.PicklingError and error.__cause__ is not None, repr(error)
            return str(error)
        said = text(e.encode_function, uses_global)
        assert said.startswith("cannot send the function 'uses_global' to a worker process: its global 'lock' "
            "(a _thread.lock) cannot be pickled"), said
        assert "initializer=" in said
        said = text(e.encode_function, uses_deep)
        assert "its global 'state', its value ['deep'], its element [1] (a _thread.lock)" in said, said
        assert "its global 'uses_global', its global 'lock' (a _thread.lock)" in text(e.encode_function, calls)
        assert "its closure variable 'held' (a _thread.lock)" in text(e.encode_function, make())
        assert "its object (self), its attribute 'guard' (a _thread.lock)" in text(e.encode_function, Holder().work)
        assert "the function 'calls' (a functools.partial)" in text(e.encode_function, functools.partial(calls, 1))
        said = text(e.encode, (1, Holder()))
        assert "the task's argument" in said and "its element [1], its attribute 'guard' (a _thread.lock)" in said, said
        said = text(e.encode, (x for x in ()))
        assert "the task's argument to a worker process: a generator cannot be pickled" in said, said
        deep = []
        for _ in range(100_000): deep = [deep]
        assert "nested too deeply" in text(e.encode, deep)
        e.encode({"fine": 1})
        w = harness.Worker()
        def unreturnable():
            return Holder()
        error = raised(w.call, unreturnable)
        assert type(error) is pickle.PicklingError and "the result back to the calling process" in str(error), error
        assert w.call(abs, -1) == 1
        """
    )


def test_a_fork_context_lock_is_refused_with_the_way_out(run: Run) -> None:
    run(
        """
        import multiprocessing
        lock = multiprocessing.get_context("fork").Lock()
        def work(): return lock
        e = harness.Worker().encoder
        for error in (raised(e.encode_function, work), raised(e.encode, (1, lock))):
            assert type(error) is TypeError and 'get_context("fork")' in str(error) and "initargs" in str(error), error
        """
    )


def test_what_fails_to_decode_is_the_tasks_own_error(run: Run) -> None:
    run(
        """
        class Bomb:
            def __reduce__(self): return (int, ("not a number",))
        w = Worker()
        assert type(raised(w.call, str, Bomb())) is ValueError
        assert w.call(abs, -1) == 1
        """
    )


def test_large_buffers_are_handed_out_of_band_once(run: Run) -> None:
    run(
        """
        import pickle
        from fanmap._codec import Encoder, decode
        class Array:
            def __init__(self, data): self.data = data
            def __reduce_ex__(self, protocol): return Array, (pickle.PickleBuffer(self.data),)
        e = Encoder()
        for size, count in ((10, 0), (1_000_000, 1)):
            buffers = []
            data = e.encode(Array(bytearray(size)), buffers=buffers)
            assert len(buffers) == count and (len(data) > size) == (count == 0)
            assert len(bytes(decode(data, buffers).data)) == size
        """
    )
