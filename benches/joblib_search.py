"""scikit-learn's GridSearchCV on fanmap's backend for joblib beside loky, which joblib uses by itself.

Each measurement is a program of its own: the first search starts the workers (cold), the second finds them (warm), the
third is of many small fits (storm). The backends take turns, so that a busy moment of the machine hits both alike. What
counts is the ratio of the medians.

    python benches/joblib_search.py [--rounds 7] [--save]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time

from _results import save, table, version

BACKENDS = ("loky", "fanmap")
# A ratio of times: above it, fanmap would be the slower one by more than the measurement's own noise.
TARGET = 1.05


def search(backend: str) -> dict[str, float]:
    """The times of the searches in this process, in seconds."""
    import fanmap.joblib
    import joblib
    from sklearn.datasets import load_digits, load_iris
    from sklearn.model_selection import GridSearchCV
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.svm import SVC

    fanmap.joblib.register()
    digits, iris = load_digits(return_X_y=True), load_iris(return_X_y=True)
    of_svc = GridSearchCV(SVC(), {"C": [0.1, 1, 10], "gamma": [0.0001, 0.001]}, cv=3, n_jobs=-1)
    of_neighbours = GridSearchCV(KNeighborsClassifier(), {"n_neighbors": list(range(1, 41))}, cv=5, n_jobs=-1)
    times = {}
    with joblib.parallel_config(backend):
        for name, searching, data in (
            ("cold", of_svc, digits),
            ("warm", of_svc, digits),
            ("storm", of_neighbours, iris),
        ):
            began = time.perf_counter()
            searching.fit(*data)
            times[name] = time.perf_counter() - began
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="how many times each backend is measured")
    parser.add_argument("--save", action="store_true", help="keep the figures in benches/results")
    parser.add_argument("--measure", choices=BACKENDS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(search(options.measure)))
        return

    times: dict[str, dict[str, list[float]]] = {}
    for number in range(-1, options.rounds):
        for backend in BACKENDS:
            program = [sys.executable, __file__, "--measure", backend]
            done = subprocess.run(program, stdout=subprocess.PIPE, text=True, check=True)
            if number >= 0:  # the first time compiles and reads the disk
                for name, taken in json.loads(done.stdout).items():
                    times.setdefault(name, {}).setdefault(backend, []).append(taken)

    rows = [("GridSearchCV", *(f"{backend}, s" for backend in BACKENDS), "fanmap / loky")]
    ratios = {}
    for name, by_backend in times.items():
        medians = [statistics.median(by_backend[backend]) for backend in BACKENDS]
        ratios[name] = medians[1] / medians[0]
        rows.append((name, *(f"{median:.3f}" for median in medians), f"{ratios[name]:.2f}"))
    print(table(rows))
    slower = [name for name, ratio in ratios.items() if ratio > TARGET]
    print(f"\nnot slower than loky: {'NOT ' + ', '.join(slower) if slower else 'all'}")
    if options.save:
        packages = {name: version(name) for name in ("joblib", "scikit-learn", "numpy")}
        save("joblib_search", {"packages": packages, "target": TARGET, "ratios": ratios, "times_s": times})


if __name__ == "__main__":
    main()
