"""Puts fanmap in the place of `concurrent.futures`, in every process of an environment.

`run.py` copies this module into an environment beside a `.pth` file that imports it, so that it is at work in the
suite's own process, in the scripts that the suite starts and in worker processes alike. It does nothing until
`concurrent.futures` is imported; then, before anybody sees that module:

* fanmap's executors, futures and functions take the places of the standard library's, in `concurrent.futures` and in
  the modules beneath it;
* the standard library's own classes are made unusable: whoever comes by one all the same gets an error, not a pass;
* the process leaves a file that says so in the directory `FANMAP_CONFORMANCE_PROOFS`, if that is set.

The file `fanmap_conformance.json` beside it may name a suite (`{"suite": path}`) for an interpreter that was installed
without: it is found there as `test.test_concurrent_futures`. With `FANMAP_CONFORMANCE_NO_CONTEXT=1` process pools are
made without the `mp_context` that the caller names, which is how most users make them.
"""

import contextlib
import functools
import importlib.util
import json
import os
import sys

TARGET = "concurrent.futures"
SUITE = "test.test_concurrent_futures"


class Substitute:
    """A finder that has `act` called once the module `name` is loaded, and otherwise leaves importing to the others."""

    def __init__(self, name, act):
        self._name = name
        self._act = act

    def find_spec(self, name, path=None, target=None):
        if name != self._name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            # The module is whole, and its importer waits: nobody else has seen it.
            self._act(module)

        spec.loader.exec_module = exec_module
        return spec


class Borrow:
    """Finds the suite in the file or folder of another installation."""

    def __init__(self, place):
        self._place = place

    def find_spec(self, name, path=None, target=None):
        if name != SUITE:
            return None
        lend_names()
        package = os.path.isdir(self._place)
        file = os.path.join(self._place, "__init__.py") if package else self._place
        return importlib.util.spec_from_file_location(
            name, file, submodule_search_locations=[self._place] if package else None
        )


def lend_names():
    """What a suite of a newer Python asks of the one that it runs on."""
    import inspect

    from test import support

    if not hasattr(support, "Py_GIL_DISABLED"):
        support.Py_GIL_DISABLED = False
        support.requires_gil_enabled = lambda reason: lambda case: case
    check, skip = support.check_sanitizer, support.skip_if_sanitizer
    if "thread" not in inspect.signature(check).parameters:
        # An interpreter that was built to look for races between threads would know the word.
        support.check_sanitizer = lambda *, thread=False, **others: bool(others) and check(**others)
        support.skip_if_sanitizer = lambda reason=None, *, thread=False, **others: (
            skip(reason, **others) if others else lambda case: case
        )
    if not hasattr(os, "process_cpu_count"):
        os.process_cpu_count = lambda: len(os.sched_getaffinity(0))


def substitute(package):
    """Put fanmap's names where the standard library's are."""
    from concurrent.futures import _base, process, thread

    standard = {name: getattr(_base, name) for name in ("Future", "wait", "as_completed")}
    standard |= {
        "ThreadPoolExecutor": thread.ThreadPoolExecutor,
        "ProcessPoolExecutor": process.ProcessPoolExecutor,
    }
    # The import system does this when the module's import has ended; fanmap's own imports want it now.
    sys.modules["concurrent"].futures = package
    import fanmap

    with contextlib.suppress(ImportError):
        # The standard library's own, whoever imports it from where: it is made from the real ThreadPoolExecutor.
        import concurrent.futures.interpreter  # noqa: F401
    # All of them before the first takes its place: fanmap's classes are made from the standard library's.
    ours = {name: getattr(fanmap, name) for name in standard}
    if os.environ.get("FANMAP_CONFORMANCE_NO_CONTEXT") == "1":
        drop_context(fanmap.ProcessPoolExecutor)
    for name, own in ours.items():
        for module in (package, _base, process, thread):
            if module is package or hasattr(module, name):
                setattr(module, name, own)
    for name in ("ThreadPoolExecutor", "ProcessPoolExecutor", "Future"):
        forbid(standard[name])
    prove(package, process, thread, fanmap)


def drop_context(executor):
    """Have process pools made as if no `mp_context` had been named."""
    init = executor.__init__

    @functools.wraps(init)
    def without(self, max_workers=None, mp_context=None, *args, **kwargs):
        init(self, max_workers, None, *args, **kwargs)

    executor.__init__ = without


def forbid(standard):
    """Have objects of exactly this class refused. Subclasses of it, fanmap's, are not."""

    def refuse(cls, *args, **kwargs):
        if cls is standard:
            raise AssertionError(f"the standard library's {cls.__name__} was about to be used in place of fanmap's")
        return object.__new__(cls)

    standard.__new__ = refuse


def prove(package, process, thread, fanmap):
    """Look that all is in place, and leave a file that says so."""
    assert package.ThreadPoolExecutor is thread.ThreadPoolExecutor is fanmap.ThreadPoolExecutor
    assert package.ProcessPoolExecutor is process.ProcessPoolExecutor is fanmap.ProcessPoolExecutor
    assert package.Future is package._base.Future is fanmap.Future
    assert all(getattr(package, name).__module__.startswith("fanmap") for name in ("Future", "ThreadPoolExecutor"))
    proofs = os.environ.get("FANMAP_CONFORMANCE_PROOFS")
    if proofs:
        with open(os.path.join(proofs, str(os.getpid())), "a", encoding="utf-8") as file:
            print(fanmap.__file__, *sys.argv[:1], file=file)


def install():
    """Called once in each process, by the `.pth` file."""
    sys.meta_path.insert(0, Substitute(TARGET, substitute))
    settings = os.path.join(os.path.dirname(__file__), "fanmap_conformance.json")
    with open(settings, encoding="utf-8") as file:
        suite = json.load(file)["suite"]
    if suite is not None:
        sys.meta_path.insert(0, Borrow(suite))


if __name__ == "fanmap_conformance":
    install()
