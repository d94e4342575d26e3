"""Importing the package: it starts nothing, opens nothing, and every public name is there and explained."""

from __future__ import annotations

import inspect

import fanmap
import pytest
from _scripts import good

OURS = [
    name
    for name in fanmap.__all__
    if getattr(getattr(fanmap, name), "__module__", "").startswith("fanmap") and callable(getattr(fanmap, name))
]


def test_importing_every_name_starts_no_thread_and_no_process_and_opens_nothing() -> None:
    good("""
        import os, threading
        before = os.listdir("/proc/self/fd")
        import fanmap
        for name in fanmap.__all__:
            getattr(fanmap, name)
        assert os.listdir("/proc/self/fd") == before
        assert threading.active_count() == 1 and len(os.listdir("/proc/self/task")) == 1
        assert open(f"/proc/self/task/{os.getpid()}/children").read() == ""
        assert "memfd" not in open("/proc/self/maps").read()
    """)


def test_importing_loads_nothing_heavy() -> None:
    out = good("""
        import sys
        before = set(sys.modules)
        import fanmap
        print(*sorted(set(sys.modules) - before))
    """)
    assert set(out.split()) <= {"fanmap", "__future__"}, out


def test_threads_need_neither_multiprocessing_nor_cloudpickle_nor_asyncio() -> None:
    out = good("""
        import fanmap, sys
        assert list(fanmap.map(abs, [-1, -2], executor="threads")) == [1, 2]
        with fanmap.ThreadPoolExecutor(1) as pool:
            pool.submit(abs, -1).result()
        print(*sorted({"cloudpickle", "asyncio", "multiprocessing"} & set(sys.modules)))
    """)
    assert out == "\n", out


def test_importing_changes_no_signal_handler_and_no_start_method() -> None:
    good("""
        import signal
        handlers = [signal.getsignal(number) for number in signal.valid_signals()]
        import fanmap
        for name in fanmap.__all__:
            getattr(fanmap, name)
        assert list(fanmap.map(abs, [-1], executor="processes")) == [1]
        assert [signal.getsignal(number) for number in signal.valid_signals()] == handlers
        import multiprocessing
        assert multiprocessing.get_start_method(allow_none=True) is None
    """)


def test_every_public_name_resolves_and_is_listed() -> None:
    assert len(set(fanmap.__all__)) == len(fanmap.__all__)
    for name in fanmap.__all__:
        assert getattr(fanmap, name) is not None
        assert name in dir(fanmap)


def test_a_module_that_is_not_imported_yet_says_how_it_is() -> None:
    good("""
        import fanmap
        for name, hint in (("joblib", True), ("ray", True), ("dask", True), ("mapp", False)):
            try:
                getattr(fanmap, name)
            except AttributeError as error:
                assert (f"import fanmap.{name}" in str(error)) == hint, error
            else:
                raise AssertionError(name)
    """)


def test_a_sub_interpreter_is_told_that_it_cannot_have_it() -> None:
    good("""
        code = (
            "import fanmap\\n"
            "try:\\n"
            "    from fanmap import ThreadPoolExecutor\\n"
            "except ImportError as error:\\n"
            "    assert 'sub-interpreter' in str(error), error\\n"
            "else:\\n"
            "    raise AssertionError('it could be imported')\\n"
        )
        try:
            import _interpreters
        except ImportError:
            import _xxsubinterpreters
            _xxsubinterpreters.run_string(_xxsubinterpreters.create(), code)
        else:
            other = _interpreters.create()
            assert _interpreters.exec(other, code) is None
            _interpreters.destroy(other)
        import fanmap
        with fanmap.ThreadPoolExecutor(1) as pool:
            assert pool.submit(abs, -1).result() == 1
    """)


def test_an_unknown_name_is_an_attribute_error_that_names_it() -> None:
    with pytest.raises(AttributeError, match="nothing_such"):
        fanmap.nothing_such  # type: ignore[attr-defined] # noqa: B018


@pytest.mark.parametrize("name", OURS)
def test_what_is_ours_has_a_docstring_with_an_example(name: str) -> None:
    doc = getattr(fanmap, name).__doc__
    assert doc and ">>> " in doc, doc


@pytest.mark.parametrize("name", [name for name in OURS if inspect.isclass(getattr(fanmap, name))])
def test_public_methods_have_docstrings(name: str) -> None:
    kind = getattr(fanmap, name)
    bare = [
        key for key, value in vars(kind).items() if inspect.isfunction(value) and key[0] != "_" and not value.__doc__
    ]
    assert bare == []
