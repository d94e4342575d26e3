"""The same work by a plain `map`, over threads and over processes: which kind of worker is for which work.

The three take turns, warm, and the best of the rounds is told: a machine that does something else, too, only ever adds.
Every way must give the same results. What starting a pool takes, which a program pays once, has a row of its own.

    python benches/kinds.py [--rounds 7] [--save]
"""

import argparse
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import fanmap
from _results import RESULTS, headline, save, version


def wait(_: int) -> None:
    """As for an answer from the network."""
    time.sleep(0.01)


def count_in_python(n: int) -> int:
    """Computes for some milliseconds, in Python code."""
    return sum(i * i for i in range(100_000 + n))


def digest(size: int) -> str:
    """Computes for some milliseconds, in C code that lets go of the interpreter."""
    return hashlib.sha256(bytes(size)).hexdigest()


def add_one(x: int) -> int:
    """Less than a tenth of a microsecond."""
    return x + 1


class Work(NamedTuple):
    title: str
    function: Callable[[Any], Any]
    items: Sequence[Any]


WORKS = [
    Work("64 waits of 10 ms, as for the network", wait, range(64)),
    Work("64 counts of some ms, in Python", count_in_python, range(64)),
    Work("64 checksums of 4 MiB, in C that lets go of the interpreter", digest, [2**22] * 64),
    Work("100,000 times x + 1", add_one, range(100_000)),
]
WAYS: dict[str, Callable[..., Iterator[Any]]] = {
    "plain map": map,
    "threads": partial(fanmap.map, executor="threads"),
    "processes": partial(fanmap.map, executor="processes"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="how many times each is timed")
    parser.add_argument("--save", action="store_true", help="keep the figures and the table in benches/results")
    options = parser.parse_args()

    figures = {work.title: taken(work, options.rounds) for work in WORKS}
    figures["one item, with the pool's start"] = starts(options.rounds)
    text = f"<!-- made by benches/kinds.py -->\n{headline(version('fanmap'))}; in milliseconds, the best in bold.\n\n"
    text += table(figures)
    print(text)
    if options.save:
        save("kinds", {"times_ms": figures})
        (RESULTS / "kinds.md").write_text(text, encoding="utf-8")


def taken(work: Work, rounds: int) -> dict[str, float]:
    """Milliseconds of each way, the best of the rounds. What a way does first is not timed: its pool starts then."""
    expected = list(map(work.function, work.items))
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    for way, mapped in WAYS.items():
        assert list(mapped(work.function, work.items)) == expected, way
    for _ in range(rounds):
        for way, mapped in WAYS.items():
            times[way].append(milliseconds(mapped, work.function, work.items))
    return {way: min(each) for way, each in times.items()}


def starts(rounds: int) -> dict[str, float]:
    """The same for a first item, while there is no pool."""
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way, mapped in WAYS.items():
            fanmap.shutdown()
            times[way].append(milliseconds(mapped, add_one, [1]))
    fanmap.shutdown()
    return {way: min(each) for way, each in times.items()}


def milliseconds(mapped: Callable[..., Iterator[Any]], function: Callable[[Any], Any], items: Sequence[Any]) -> float:
    started = time.perf_counter()
    for _ in mapped(function, items):
        pass
    return (time.perf_counter() - started) * 1000


def table(figures: dict[str, dict[str, float]]) -> str:
    lines = [f"| work | {' | '.join(WAYS)} |", "|---" * (len(WAYS) + 1) + "|"]
    for title, row in figures.items():
        cells = [f"{value:.3g}" if value < 1000 else f"{value:.0f}" for value in row.values()]
        best = min(range(len(cells)), key=list(row.values()).__getitem__)
        cells[best] = f"**{cells[best]}**"
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
