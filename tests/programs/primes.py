"""Which of these numbers are prime: a plain map over processes, zipped with its input."""

import math
from concurrent.futures import ProcessPoolExecutor

NUMBERS = [112272535095293, 1099726899285419, 15, 2, 0, 97, 1000003, 1000001]


def is_prime(n):
    if n < 2:
        return False
    if n % 2 == 0:
        return n == 2
    limit = min(math.isqrt(n), 20_001)
    return all(n % divisor for divisor in range(3, limit + 1, 2))


def main():
    with ProcessPoolExecutor(max_workers=2) as executor:
        for number, prime in zip(NUMBERS, executor.map(is_prime, NUMBERS), strict=True):
            print(number, "has no small divisor" if prime else "is not prime")


if __name__ == "__main__":
    main()
