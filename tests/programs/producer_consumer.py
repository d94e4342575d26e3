"""A producer and two consumers over a bounded queue, each a task of one pool."""

import queue
from concurrent.futures import ThreadPoolExecutor

END = object()


def produce(channel, count, consumers):
    for item in range(count):
        channel.put(item)
    for _ in range(consumers):
        channel.put(END)
    return f"produced {count}"


def consume(channel):
    total = 0
    while (item := channel.get()) is not END:
        total += item
    return total


channel = queue.Queue(maxsize=3)
with ThreadPoolExecutor(max_workers=3) as executor:
    consumers = [executor.submit(consume, channel) for _ in range(2)]
    producer = executor.submit(produce, channel, 200, len(consumers))
print(producer.result(), "and consumed a total of", sum(future.result() for future in consumers))
