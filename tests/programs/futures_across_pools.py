"""Threads download, processes compute: one pool's callback feeds the other, and one wait is for both."""

import queue
import zlib
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed


def download(k):
    return (b"%d," % k) * 1000


def shrink(data):
    return len(data), zlib.crc32(data), zlib.decompress(zlib.compress(data)) == data


def main():
    with ThreadPoolExecutor(4) as threads, ProcessPoolExecutor(2) as processes:
        computing = queue.Queue()
        for k in range(10):
            downloading = threads.submit(download, k)
            downloading.add_done_callback(lambda done: computing.put(processes.submit(shrink, done.result())))
        futures = [computing.get(timeout=60) for _ in range(10)]
        mixed = [*futures, threads.submit(pow, 2, 3), processes.submit(pow, 3, 2)]
        results = [future.result() for future in as_completed(mixed, timeout=60)]
    print(sorted(results, key=repr))


if __name__ == "__main__":
    main()
