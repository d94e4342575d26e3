"""How far a map is: a bar by tqdm, and any other display through a function, here Rich's.

pip install 'fanmap[progress]' rich
python examples/progress.py
"""

import os

import fanmap

SMALL = os.environ.get("FANMAP_DEMO") == "small"
NUMBERS = range(2_000_000, 2_000_000 + (200 if SMALL else 20_000))


def is_prime(n: int) -> bool:
    return n > 1 and all(n % d for d in range(2, int(n**0.5) + 1))


def with_tqdm() -> int:
    return sum(fanmap.map(is_prime, NUMBERS, progress="primes"))


def with_rich() -> int:
    from rich.progress import Progress

    with Progress() as display:
        task = display.add_task("primes", total=None)
        results = fanmap.map(
            is_prime,
            NUMBERS,
            progress=lambda done, total: display.update(task, completed=done, total=total),
        )
        return sum(results)


def with_a_function() -> int:
    def show(done: int, total: int | None) -> None:
        print(f"{done} of {total}", end="\r", flush=True)

    found = sum(fanmap.map(is_prime, NUMBERS, progress=show))
    print()
    return found


def main() -> None:
    found = {}
    for way in (with_tqdm, with_rich, with_a_function):
        try:
            found[way.__name__] = way()
        except ImportError as error:
            print(f"{way.__name__}: {error}")
    assert len(set(found.values())) == 1
    print(", ".join(found), "found", found["with_a_function"], "primes each")


if __name__ == "__main__":
    main()
