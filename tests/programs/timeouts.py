"""Every way to run out of time, and what can still be had afterwards."""

import threading
from concurrent.futures import ALL_COMPLETED, ThreadPoolExecutor, TimeoutError, as_completed, wait

gate = threading.Event()
blocked = threading.Semaphore(0)


def work(k):
    if k >= 2:
        blocked.release()
        assert gate.wait(60)
    return k * 10


with ThreadPoolExecutor(max_workers=4) as executor:
    futures = [executor.submit(work, k) for k in range(4)]
    assert blocked.acquire(timeout=60) and blocked.acquire(timeout=60)
    print("quick ones:", [future.result(timeout=60) for future in futures[:2]])
    for ask in (futures[2].result, futures[3].exception):
        try:
            ask(timeout=0.01)
        except TimeoutError as error:
            print(type(error).__name__, repr(str(error)))
    try:
        seen = []
        for future in as_completed(futures, timeout=0.01):
            seen.append(future.result())
    except TimeoutError as error:
        print(sorted(seen), error)
    done, pending = wait(futures, timeout=0.01, return_when=ALL_COMPLETED)
    print(len(done), "done,", len(pending), "not done")

    with ThreadPoolExecutor(max_workers=2) as two:
        results = two.map(work, range(4), timeout=0.01)
        # With both of its workers blocked, what came before is done; and is handed out, however late.
        assert blocked.acquire(timeout=60) and blocked.acquire(timeout=60)
        try:
            for result in results:
                print("map gave", result)
        except TimeoutError:
            print("map ran out of time")
        print("and has ended:", list(results))
        gate.set()
    print("afterwards:", [future.result(60) for future in futures])
print(TimeoutError is __builtins__.TimeoutError)
