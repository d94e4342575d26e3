"""Callbacks: in the order in which they were added, at once if it is too late, and one that raises stops none."""

import logging
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor


class Short(logging.Formatter):
    """The level, and the error alone: a future's address is never the same twice."""

    def format(self, record):
        return f"{record.levelname}: {record.exc_info[1]!r}"


handler = logging.StreamHandler(sys.stdout)
handler.setFormatter(Short())
logging.getLogger().addHandler(handler)
gate = threading.Event()


def work(x):
    assert gate.wait(60)
    return x + 1


def tell(name):
    return lambda future: print(name, "hears", future.result(), future.done())


def complain(future):
    raise ValueError("a callback's error")


with ThreadPoolExecutor(max_workers=1) as executor:
    future = executor.submit(work, 41)
    future.add_done_callback(tell("first"))
    future.add_done_callback(tell("second"))
    gate.set()
print("the pool is closed")
future.add_done_callback(tell("late"))

# By hand: this thread completes it.
future = Future()
future.add_done_callback(tell("before"))
future.add_done_callback(complain)
future.add_done_callback(tell("after"))
future.set_running_or_notify_cancel()
future.set_result("everything")

# A callback of a cancelled future is called too, and may submit more.
with ThreadPoolExecutor(max_workers=1) as executor:
    gate.clear()
    blocker, cancelled = executor.submit(work, 0), executor.submit(work, 1)
    chained = Future()
    cancelled.add_done_callback(lambda future: print("cancelled:", future.cancelled()))
    blocker.add_done_callback(lambda future: chained.set_result(executor.submit(work, future.result() + 1)))
    print(cancelled.cancel())
    gate.set()
    print("chained:", chained.result(60).result(60))
