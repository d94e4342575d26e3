"""Context variables travel with a task to a thread, as they are when it is submitted, and nothing comes back."""

from __future__ import annotations

import asyncio
import contextvars
import decimal
from collections.abc import Iterator
from typing import Any

import fanmap
import pytest

LIMIT = 60
name: contextvars.ContextVar[str] = contextvars.ContextVar("name", default="nobody")


def swap(_: Any = None) -> str:
    """The name that this task sees; and it sets another."""
    seen = name.get()
    name.set("the task's")
    return seen


@pytest.fixture(autouse=True)
def my_name() -> Iterator[None]:
    token = name.set("mine")
    yield
    name.reset(token)


def lower_precision(_: Any = None) -> int:
    seen = decimal.getcontext().prec
    decimal.getcontext().prec = 5
    return seen


def test_each_task_has_a_decimal_context_of_its_own() -> None:
    before = decimal.getcontext().prec
    with fanmap.ThreadPoolExecutor(1) as pool:
        assert [pool.submit(lower_precision).result(LIMIT) for _ in range(2)] == [before] * 2
        assert list(pool.map(lower_precision, range(2))) == [before] * 2
    assert decimal.getcontext().prec == before


def test_each_submitted_task_has_a_copy_of_its_own() -> None:
    with fanmap.ThreadPoolExecutor(1) as pool:
        mine = [pool.submit(swap), pool.submit(swap)]
        theirs = contextvars.Context().run(pool.submit, swap)
        assert [future.result(LIMIT) for future in (*mine, theirs)] == ["mine", "mine", "nobody"]
    assert name.get() == "mine"


def test_a_task_sees_the_context_of_its_submit_and_not_what_was_set_later() -> None:
    with fanmap.ThreadPoolExecutor(1) as pool:
        future = pool.submit(swap)
        name.set("later")
        assert future.result(LIMIT) == "mine"


@pytest.mark.parametrize("how", ["pool", "name", "workers"])
def test_the_items_of_a_map_have_the_context_of_its_call_each(how: str) -> None:
    with fanmap.ThreadPoolExecutor(2) as pool:
        if how == "pool":
            results = pool.map(swap, range(6))
        else:
            results = fanmap.map(swap, range(6), executor="threads", workers=2 if how == "workers" else None)
        name.set("later")
        assert list(results) == ["mine"] * 6


def test_what_lives_in_the_context_comes_along() -> None:
    with decimal.localcontext() as context, fanmap.ThreadPoolExecutor(1) as pool:
        context.prec = 5
        assert pool.submit(lambda: decimal.Decimal(1) / 3).result(LIMIT) == decimal.Decimal("0.33333")


def test_asyncio_passes_on_the_context_of_its_task() -> None:
    async def ask(pool: fanmap.ThreadPoolExecutor, me: str) -> str:
        name.set(me)
        return await asyncio.get_running_loop().run_in_executor(pool, swap)

    async def main() -> list[str]:
        with fanmap.ThreadPoolExecutor(1) as pool:
            return await asyncio.gather(*(ask(pool, me) for me in "abc"))

    assert asyncio.run(main()) == ["a", "b", "c"]


def test_other_processes_have_contexts_of_their_own() -> None:
    with fanmap.ProcessPoolExecutor(1) as pool:
        assert pool.submit(swap).result(LIMIT) != "mine"
    assert name.get() == "mine"
