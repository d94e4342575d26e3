"""Sort the parts in processes and merge pairs as they complete."""

import heapq
import random
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait


def merge(one, two):
    return list(heapq.merge(one, two))


def main():
    rng = random.Random(12)
    values = [rng.randrange(10_000) for _ in range(1000)]
    with ProcessPoolExecutor(2) as executor:
        pending = {executor.submit(sorted, values[start : start + 125]) for start in range(0, 1000, 125)}
        parts = []
        while pending:
            done, pending = wait(pending, timeout=60, return_when=FIRST_COMPLETED)
            parts += [future.result() for future in done]
            while len(parts) > 1:
                pending.add(executor.submit(merge, parts.pop(), parts.pop()))
    (result,) = parts
    print(result == sorted(values), len(result), result[:5])


if __name__ == "__main__":
    main()
