"""Errors of tasks: their type, arguments and attributes arrive, `map` ends at the first, and the pool goes on."""

import traceback
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor


class Rejected(Exception):
    def __init__(self, item, reason):
        super().__init__(item, reason)
        self.item = item
        self.reason = reason


def check(x):
    if x == 3:
        raise Rejected(x, "not liked")
    return 12 // (x - 5)


def leave():
    raise SystemExit(3)


def main():
    for kind in (ThreadPoolExecutor, ProcessPoolExecutor):
        print(kind.__name__)
        with kind(max_workers=2) as executor:
            for x, future in [(x, executor.submit(check, x)) for x in range(2, 7)]:
                try:
                    print(" ", x, future.result())
                except Rejected as error:
                    print(" ", x, "rejected:", error.item, error.reason, error.args)
                except ArithmeticError:
                    print(" ", x, traceback.format_exception_only(future.exception()))
                    assert "12 // (x - 5)" in "".join(traceback.format_exception(future.exception()))
            results = executor.map(check, [1, 2, 3, 4])
            try:
                for result in results:
                    print("  map gave", result)
            except Rejected as error:
                print("  map stopped:", error)
            print("  then nothing:", list(results))
            print("  ", repr(executor.submit(leave).exception()))
            print("  still here:", executor.submit(check, 4).result())
        try:
            with kind(max_workers=1) as executor:
                executor.submit(check, 3).result()
        except Rejected:
            print("  it left the with statement")


if __name__ == "__main__":
    main()
