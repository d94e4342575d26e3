"""What can be cancelled and what not, and what a cancelled future says."""

import re
import threading
from concurrent.futures import CancelledError, ThreadPoolExecutor, wait

started, gate = threading.Event(), threading.Event()


def work(x):
    started.set()
    assert gate.wait(60)
    return x


def show(future):
    return re.sub(r"0x[0-9a-f]+", "0x...", repr(future))


with ThreadPoolExecutor(max_workers=1) as executor:
    running = executor.submit(work, 1)
    assert started.wait(60)
    waiting, doomed = executor.submit(work, 2), executor.submit(work, 3)
    for future in (running, waiting, doomed):
        print(show(future), future.running(), future.done())
    print("cancel:", running.cancel(), doomed.cancel(), doomed.cancel())
    print(show(doomed), doomed.cancelled(), doomed.done(), doomed.running())
    for ask in (doomed.result, doomed.exception):
        try:
            ask()
        except CancelledError as error:
            print(type(error).__name__, error.args)
    gate.set()
    done, pending = wait([running, waiting, doomed], timeout=60)
    print(len(done), len(pending), [future.result() for future in (running, waiting)])
    print(show(running), running.cancel())
    failed = executor.submit(int, "x")
    print(failed.exception(), show(failed))
