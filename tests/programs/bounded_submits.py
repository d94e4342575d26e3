"""No more than four calls in flight: a semaphore that each future's callback gives back."""

import threading
from concurrent.futures import ProcessPoolExecutor


class BoundedExecutor:
    def __init__(self, executor, limit):
        self.executor = executor
        self.semaphore = threading.BoundedSemaphore(limit)
        self.lock = threading.Lock()
        self.in_flight = self.most = 0

    def submit(self, fn, *args):
        assert self.semaphore.acquire(timeout=60)
        with self.lock:
            self.in_flight += 1
            self.most = max(self.most, self.in_flight)
        future = self.executor.submit(fn, *args)
        future.add_done_callback(self.release)
        return future

    def release(self, future):
        with self.lock:
            self.in_flight -= 1
        self.semaphore.release()


def square(x):
    return x * x


def main():
    with ProcessPoolExecutor(max_workers=2) as executor:
        bounded = BoundedExecutor(executor, 4)
        futures = [bounded.submit(square, x) for x in range(100)]
        print(sum(future.result() for future in futures))
    print(bounded.most <= 4, bounded.in_flight)


if __name__ == "__main__":
    main()
