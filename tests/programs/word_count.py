"""Count words: map over chunks of a text in processes, then reduce."""

import functools
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

TEXT = """the quick brown fox jumps over the lazy dog while the other dog sleeps and the fox
runs away from the hounds that the hunter sent over the hill to find the quick fox again"""


def count(words):
    return Counter(word.lower() for word in words)


def main():
    words = TEXT.split()
    chunks = [words[start : start + 5] for start in range(0, len(words), 5)]
    with ProcessPoolExecutor(2) as executor:
        total = functools.reduce(lambda one, two: one + two, executor.map(count, chunks, chunksize=2))
    for word, times in sorted(total.items(), key=lambda pair: (-pair[1], pair[0]))[:6]:
        print(f"{times:3} {word}")
    print(sum(total.values()) == len(words))


if __name__ == "__main__":
    main()
