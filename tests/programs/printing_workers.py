"""What workers print and log to the standard streams comes out."""

import sys
from concurrent.futures import ProcessPoolExecutor


def say(x):
    print("worker says", x)
    sys.stdout.flush()
    return x


def main():
    print("before", flush=True)
    with ProcessPoolExecutor(max_workers=1) as executor:
        for x in range(3):
            print("parent has", executor.submit(say, x).result(), flush=True)
        print("unflushed", executor.submit(print, "said without a flush").result(), file=sys.stderr)
    print("after")


if __name__ == "__main__":
    main()
