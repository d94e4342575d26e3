"""loky: its reusable executor."""

from __future__ import annotations

from loky import get_reusable_executor

from .futures import OverExecutor


class Processes(OverExecutor):
    """`get_reusable_executor`, as its page has it."""

    by_value = True

    def __init__(self, workers: int) -> None:
        super().__init__(workers)
        self.executor = get_reusable_executor(max_workers=workers)
