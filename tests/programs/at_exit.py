"""Nobody shuts these pools down: what was submitted is finished at exit, before the handlers of `atexit`."""

import atexit
import os
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

futures = []


def say(x):
    os.write(1, f"thread task {x}\n".encode())
    return x


def report():
    print("at exit:", [future.done() for future in futures], sum(future.result() for future in futures))
    sys.stdout.flush()


if __name__ == "__main__":
    atexit.register(report)
    threads, processes = ThreadPoolExecutor(max_workers=1), ProcessPoolExecutor(max_workers=1)
    futures += [threads.submit(say, x) for x in range(5)]
    futures += [processes.submit(pow, x, 2) for x in range(5)]
    sys.exit(3)
