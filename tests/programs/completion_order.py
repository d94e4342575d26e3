"""`as_completed` gives futures as they end, here in the reverse of the order in which they were submitted."""

import threading
from concurrent.futures import ThreadPoolExecutor, as_completed

N = 5
turns = [threading.Event() for _ in range(N)]


def work(k):
    assert turns[k].wait(60)
    return k


with ThreadPoolExecutor(max_workers=N) as executor:
    futures = {executor.submit(work, k): f"task {k}" for k in range(N)}
    turns[N - 1].set()
    for future in as_completed(futures, timeout=60):
        k = future.result()
        print(futures[future], "gave", k, future.done(), future.running(), future.cancelled())
        if k:
            turns[k - 1].set()

# Given twice, a future comes once; those that are done already come too.
with ThreadPoolExecutor(1) as executor:
    done = executor.submit(pow, 2, 5)
    print([future.result() for future in as_completed([done, done])])
