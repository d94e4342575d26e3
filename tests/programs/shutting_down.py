"""Every way to shut down, and what is said to who comes too late."""

import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

started, gate = threading.Event(), threading.Event()


def work(x):
    started.set()
    assert gate.wait(60)
    return x


def refuse(call):
    try:
        call()
    except RuntimeError as error:
        print(type(error).__name__, error)


def main():
    executor = ThreadPoolExecutor(max_workers=1)
    futures = [executor.submit(work, x) for x in range(4)]
    assert started.wait(60)
    executor.shutdown(wait=False, cancel_futures=True)
    refuse(lambda: executor.submit(work, 9))
    refuse(lambda: executor.map(work, [9]))
    gate.set()
    executor.shutdown(wait=True)
    executor.shutdown()
    print([future.cancelled() for future in futures], futures[0].result())

    executor = ProcessPoolExecutor(max_workers=1)
    futures = [executor.submit(pow, 2, x) for x in range(10)]
    executor.shutdown(wait=False)
    refuse(lambda: executor.submit(abs, 1))
    print([future.result(60) for future in futures])
    executor.shutdown()

    for kind in (ThreadPoolExecutor, ProcessPoolExecutor):
        kind().shutdown()  # never used
        with kind(1) as executor:
            print(isinstance(executor, kind), executor.submit(abs, -1).result())
        refuse(lambda: executor.submit(abs, 1))


if __name__ == "__main__":
    main()
