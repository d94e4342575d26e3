"""How much longer `import fanmap` takes than `import concurrent.futures.process`, which it stands in for.

Each import is timed inside a fresh interpreter. The kinds take turns, so that a busy moment of the machine hits all
alike, and the median is compared. `fanmap` resolves its names when they are asked for, so the third kind asks for
what a program needs first: it is what a user waits for in the end, and has no target.

    python benches/import_time.py [--rounds 40] [--save]
"""

import argparse
import statistics
import subprocess
import sys

from _results import save, table

TARGET_MS = 15.0
STANDARD = "import concurrent.futures.process"
OURS = "import fanmap"
WITH_NAMES = "from fanmap import ProcessPoolExecutor, ThreadPoolExecutor, map"


def imported_in_ms(statement: str) -> float:
    """How long `statement` takes in a fresh interpreter, in milliseconds; the interpreter's own start is not in it."""
    program = f"import time; started = time.perf_counter(); {statement}; print(time.perf_counter() - started)"
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40, help="how many times each import is timed")
    parser.add_argument("--save", action="store_true", help="keep the figures in benches/results")
    options = parser.parse_args()

    times: dict[str, list[float]] = {statement: [] for statement in (STANDARD, OURS, WITH_NAMES)}
    for statement in times:
        imported_in_ms(statement)  # The first time compiles and reads the disk.
    for _ in range(options.rounds):
        for statement, taken in times.items():
            taken.append(imported_in_ms(statement))

    medians = {statement: statistics.median(taken) for statement, taken in times.items()}
    rows = [("", "median ms", "quartiles ms", "over the first ms")]
    for statement, taken in times.items():
        low, _, high = statistics.quantiles(taken, n=4)
        over = medians[statement] - medians[STANDARD]
        rows.append((statement, f"{medians[statement]:.1f}", f"{low:.1f} .. {high:.1f}", f"{over:+.1f}"))
    print(table(rows))

    more = medians[OURS] - medians[STANDARD]
    print(f"\n{OURS}: {more:+.1f} ms, {'within' if more < TARGET_MS else 'NOT within'} {TARGET_MS:.0f} ms")
    if options.save:
        save("import_time", {"target_ms": TARGET_MS, "more_ms": more, "times_ms": times})


if __name__ == "__main__":
    main()
