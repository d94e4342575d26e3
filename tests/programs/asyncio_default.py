"""A default executor of one's own, to_thread, wrap_future, time-outs, and cancelling what has not started."""

import asyncio
import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor

user = contextvars.ContextVar("user")
gate = threading.Event()


def whoami():
    return user.get(), threading.current_thread().name


def block():
    assert gate.wait(60)
    return "unblocked"


async def main():
    loop = asyncio.get_running_loop()
    executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="background")
    loop.set_default_executor(executor)
    user.set("ada")
    print(await asyncio.to_thread(whoami))

    blocked = loop.run_in_executor(None, block)
    waiting = executor.submit(whoami)
    try:
        await asyncio.wait_for(asyncio.wrap_future(waiting), 0.01)
    except TimeoutError:
        print("timed out; cancelled with it:", waiting.cancelled())
    task = asyncio.ensure_future(asyncio.to_thread(whoami))
    await asyncio.sleep(0)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        print("cancelled")
    gate.set()
    print(await blocked)
    print(await asyncio.wrap_future(executor.submit(sum, [1, 2, 3])))
    await loop.shutdown_default_executor()
    try:
        executor.submit(whoami)
    except RuntimeError as error:
        print(error)


asyncio.run(main())
