"""Pi by throwing darts in processes, each with a seed of its own."""

import random
from concurrent.futures import ProcessPoolExecutor


def throw(seed, darts):
    rng = random.Random(seed)
    return sum(rng.random() ** 2 + rng.random() ** 2 <= 1 for _ in range(darts))


def main():
    darts, runs = 2_000, 20
    with ProcessPoolExecutor(max_workers=2) as executor:
        inside = sum(executor.map(throw, range(runs), [darts] * runs, chunksize=5))
    print(f"{4 * inside / darts / runs:.6f}")


if __name__ == "__main__":
    main()
