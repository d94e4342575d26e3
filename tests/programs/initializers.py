"""Initializers: a connection for each thread, a model for each process, and what a failing one does."""

import logging
import threading
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, ThreadPoolExecutor

logging.getLogger("concurrent.futures").addHandler(logging.NullHandler())
logging.getLogger("concurrent.futures").propagate = False
local = threading.local()


def connect(address):
    local.connection = f"connection to {address}"


def query(key):
    return f"{local.connection}: {key}"


def load(scale, offset):
    global model
    model = lambda x: x * scale + offset  # noqa: E731


def predict(x):
    return model(x)


def fail():
    raise OSError("no such model")


def main():
    with ThreadPoolExecutor(max_workers=3, initializer=connect, initargs=("db",)) as pool:
        print(list(pool.map(query, "abc")))
    with ProcessPoolExecutor(max_workers=2, initializer=load, initargs=(10, 1)) as pool:
        print(list(pool.map(predict, range(8))))
    print("model" in globals(), hasattr(local, "connection"))
    for kind in (ThreadPoolExecutor, ProcessPoolExecutor):
        with kind(max_workers=1, initializer=fail) as pool:
            try:
                pool.submit(abs, -1).result(60)
            except BrokenExecutor as error:
                print(type(error).__name__)
            try:
                pool.submit(abs, -2)
            except BrokenExecutor as error:
                print(type(error).__name__, "again")


if __name__ == "__main__":
    main()
