"""fanmap beside its peers: whole programs, from a tiny map to large arrays.

The peers are concurrent.futures, multiprocessing, joblib, loky, mpire, pebble and pathos; Ray and Dask if they are
asked for. Run it with the interpreter of an environment that has them: `make bench-env` makes `.venv-bench`.

    .venv-bench/bin/python benches/speed.py [--short] [--only tiny-map,storm] [--peers fanmap,pool] [--save]

`--only` takes workloads (`--list` names them), `--peers` libraries or single peers. `--save` keeps the figures, the
table and the picture in benches/results; `--read` makes table and picture anew from figures that were kept.
"""

import argparse
import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

from _results import RESULTS, circumstances, save, version
from comparison import chart, report
from comparison.driver import take
from comparison.plan import Settings, Workload
from comparison.roster import NEAREST, ON_REQUEST, ROSTER, chosen
from comparison.workloads import WORKLOADS
from comparison.workloads import chosen as workloads_called


def words(text: str) -> list[str]:
    """What is between the commas."""
    return text.split(",")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=words, metavar="A,B", help="these workloads")
    parser.add_argument("--peers", type=words, metavar="A,B", help="these peers")
    parser.add_argument("--short", action="store_true", help="the nearest peers and few rounds: under three minutes")
    parser.add_argument("--workers", type=int, default=2, help="workers of each pool (2)")
    parser.add_argument("--rounds", type=int, help="how many times each peer has its turn")
    parser.add_argument("--scale", type=float, default=1.0, help="a fraction of the work, to see that everything runs")
    parser.add_argument("--limit", type=float, help="what a measurement may take, in seconds")
    for name in ON_REQUEST:
        parser.add_argument(f"--with-{name}", action="store_true", help=f"{ROSTER[name].title}, too")
    parser.add_argument("--save", action="store_true", help="keep figures, table and picture in benches/results")
    parser.add_argument("--into", type=Path, default=RESULTS, metavar="FOLDER", help="where --save keeps them instead")
    parser.add_argument("--read", type=Path, metavar="FILE", help="measure nothing: table and picture of kept figures")
    parser.add_argument("--list", action="store_true", help="name the workloads and the peers")
    return parser.parse_args()


def plan(options: argparse.Namespace) -> list[tuple[Workload, list[str], int]]:
    """The workloads, the peers of each and the number of rounds, as the user asked."""
    workloads = workloads_called(options.only) if options.only else list(WORKLOADS)
    planned = []
    for workload in workloads:
        rounds = workload.short_rounds if options.short else workload.rounds
        if options.only:
            rounds = max(rounds, 1)  # what is asked for by name is not left out
        if options.peers:
            names = chosen(workload.cast, options.peers)
        else:
            names = [one for one in workload.cast if one not in ON_REQUEST or getattr(options, f"with_{one}")]
            if options.short:
                names = chosen(tuple(names), list(workload.short_cast or NEAREST))
        if names and rounds:
            planned.append((workload, names, options.rounds or rounds))
    return planned


def who_and_when(figures: dict[str, Any]) -> str:
    """Date, machine and versions in one paragraph."""
    machine = figures["machine"]
    versions = {"fanmap": figures["versions"]["fanmap"], **figures["peers"]}
    return (
        f"{figures['date'][:10]}, {machine['processor']}, {machine['cores']} cores, {machine['system']}, "
        f"Python {figures['versions']['python'].split()[0]}, {figures['settings']['workers']} workers; "
        + ", ".join(f"{name} {one}" for name, one in versions.items() if one)
        + "."
    )


def show(figures: dict[str, Any], into: Path | None) -> None:
    """Print the table; with a path, keep it and the picture there, by their suffixes."""
    text = report.page(figures["workloads"], WORKLOADS, who_and_when(figures))
    print(text)
    if into is not None:
        drawn = chart.draw(report.panels(figures["workloads"], WORKLOADS), who_and_when(figures).partition(";")[0])
        for suffix, content in ((".md", text), (".svg", drawn)):
            path = into.with_suffix(suffix)
            path.write_text(content, encoding="utf-8")
            print(f"saved as {path}")


def main() -> None:
    options = arguments()
    # Who reads no more (`--list | head`) ends it, without a traceback.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    if options.list:
        print("workloads:", *(f"  {one.name:20} {one.title}" for one in WORKLOADS), sep="\n")
        print("peers:", *(f"  {name:24} {entry.title}" for name, entry in ROSTER.items()), sep="\n")
        return
    if options.read:
        show(json.loads(options.read.read_text(encoding="utf-8")), options.read if options.save else None)
        return
    try:
        planned = plan(options)
    except ValueError as error:
        raise SystemExit(f"speed: {error}") from None
    settings = Settings(options.workers, options.scale, 0.2 if options.short else 1.0)
    started = time.monotonic()
    taken = take(
        planned,
        settings,
        short=options.short,
        limit=options.limit,
        tell=lambda line: print(line, file=sys.stderr, flush=True),
    )
    figures: dict[str, Any] = {
        "settings": {
            "workers": options.workers,
            "scale": options.scale,
            "short": options.short,
            "rounds": options.rounds,
            "limit": options.limit,
        },
        "seconds": round(time.monotonic() - started),
        "peers": {entry.package: version(entry.package) for entry in ROSTER.values() if entry.package},
        "workloads": taken,
    }
    name = "speed-short" if options.short else "speed"
    if options.save:
        save(name, figures, options.into)
    show({**circumstances(), **figures}, options.into / name if options.save else None)


if __name__ == "__main__":
    main()
