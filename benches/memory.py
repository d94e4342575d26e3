"""How much memory a program needs for 1,000,000 items through `fanmap.map`, against the same loop with built-in `map`.

The items come from a generator and are consumed one at a time, so nothing obliges anybody to hold more than a few.
Each way runs in a fresh interpreter; counted is that process's peak resident memory, with the shared memory that it
has touched. The workers' own memory is not in it. A second figure, taken after a tenth of the items, shows whether it
grows.

    python benches/memory.py [--items 1000000] [--save]
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

from _results import save, table

TARGET_MB = 30.0
WAYS = ("built-in map", "threads", "processes")


def work(x: int) -> int:
    """Next to nothing: the fewer microseconds a task takes, the faster unread results would pile up."""
    return x + 1


def results(way: str, items: Iterable[int]) -> Iterator[int]:
    """`map(work, items)`, done in this way."""
    if way == "built-in map":
        return map(work, items)
    import fanmap  # Not needed for the built-in map, and so not in its memory.

    return iter(fanmap.map(work, items, executor=way))


def measure(way: str, count: int) -> dict[str, Any]:
    """Consume `count` results one at a time, in this process."""
    early, total, started = 0.0, 0, time.perf_counter()
    for index, result in enumerate(results(way, (x for x in range(count)))):
        total += result
        if index == count // 10:
            early = peak_mb()
    seconds = time.perf_counter() - started
    if total != count * (count + 1) // 2:
        raise AssertionError(f"{way}: the results add up to {total}")
    figures = {"way": way, "seconds": seconds, "early_mb": early, "peak_mb": peak_mb()}
    if "fanmap" in sys.modules:
        sys.modules["fanmap"].shutdown()
    return figures


def peak_mb() -> float:
    """This process's peak resident memory so far, in MB (10^6 bytes)."""
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")) * 1024 / 1e6
    except OSError:
        # Not first choice: on Linux this figure remembers the process that started this one.
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def measure_afresh(way: str, count: int) -> dict[str, Any]:
    """`measure`, in an interpreter of its own."""
    command = [sys.executable, __file__, "--items", str(count), "--way", way]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1_000_000, help="how many items go through the map")
    parser.add_argument("--save", action="store_true", help="keep the figures in benches/results")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        print(json.dumps(measure(options.way, options.items)))
        return

    taken = [measure_afresh(way, options.items) for way in WAYS]
    least = taken[0]["peak_mb"]
    rows = [(f"{options.items:,} items", "seconds", "after a tenth MB", "peak MB", "more MB")]
    for figures in taken:
        numbers = ("seconds", "early_mb", "peak_mb")
        rows.append(
            (figures["way"], *(f"{figures[number]:.1f}" for number in numbers), f"{figures['peak_mb'] - least:+.1f}")
        )
    print(table(rows))

    most = max(figures["peak_mb"] for figures in taken) - least
    print(f"\nat most {most:+.1f} MB, {'within' if most < TARGET_MB else 'NOT within'} {TARGET_MB:.0f} MB")
    if options.save:
        save("memory", {"target_mb": TARGET_MB, "more_mb": most, "items": options.items, "ways": taken})


if __name__ == "__main__":
    main()
