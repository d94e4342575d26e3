"""Functions that carry much, and many of them: a partial over a table, replaced by the next one after each call."""

import functools
from concurrent.futures import ProcessPoolExecutor


def look_up(table, key):
    return len(table), table[key]


def add(n, x):
    return n + x


def main():
    with ProcessPoolExecutor(max_workers=1) as executor:
        for scale in range(1, 6):
            table = [scale * n for n in range(30_000)]
            print(executor.submit(functools.partial(look_up, table), 1234).result(60))
        print(sum(executor.submit(functools.partial(add, n), 1).result(60) for n in range(60)))


if __name__ == "__main__":
    main()
