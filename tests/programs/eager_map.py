"""`Executor.map` reads its inputs at the call, in the caller's thread, and runs everything even if nobody asks."""

import threading
from concurrent.futures import ThreadPoolExecutor

ran, readers = [], set()


def numbers(n):
    for k in range(n):
        readers.add(threading.current_thread() is threading.main_thread())
        yield k


def work(x, y=0):
    ran.append(x)
    return x + y


with ThreadPoolExecutor(max_workers=2) as executor:
    results = executor.map(work, numbers(5))
    print("read in the main thread alone:", readers)
    print(next(results), next(results))
    executor.map(work, numbers(3))
    print(list(executor.map(work, [1, 2, 3], numbers(10))), list(executor.map(work, [])))
    print(list(executor.map(lambda *rest: rest, "ab", (1, 2), numbers(2))))
print(len(ran))

with ThreadPoolExecutor(max_workers=2) as executor:

    def broken():
        yield 1
        raise OSError("the input is broken")

    try:
        executor.map(work, broken())
    except OSError as error:
        print(error)
    for bad in (0, -1):
        try:
            ThreadPoolExecutor(max_workers=bad)
        except ValueError as error:
            print(error)
