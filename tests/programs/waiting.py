"""The three ways to wait for several futures."""

import threading
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION, ThreadPoolExecutor, wait

gates = {name: threading.Event() for name in "abc"}


def work(name):
    assert gates[name].wait(60)
    if name == "b":
        raise KeyError(name)
    return name


with ThreadPoolExecutor(max_workers=3) as executor:
    futures = {executor.submit(work, name): name for name in "abc"}

    def show(result):
        print("".join(sorted(futures[f] for f in result.done)), "".join(sorted(futures[f] for f in result.not_done)))

    show(wait(futures, timeout=0))
    gates["a"].set()
    show(wait(futures, timeout=60, return_when=FIRST_COMPLETED))
    gates["b"].set()
    show(wait(futures, timeout=60, return_when=FIRST_EXCEPTION))
    gates["c"].set()
    done, not_done = wait(futures, 60, ALL_COMPLETED)
    print(len(done), len(not_done))
    show(wait([]))
    try:
        wait(futures, return_when="SOMETIME")
    except ValueError as error:
        print(error)
print(FIRST_COMPLETED, FIRST_EXCEPTION, ALL_COMPLETED)
