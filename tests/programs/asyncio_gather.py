"""asyncio with both pools: gather keeps the order, errors arrive where they are awaited."""

import asyncio
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor


def fibonacci(n):
    if n > 25:
        raise ValueError(f"{n} is too many")
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)


async def main():
    loop = asyncio.get_running_loop()
    for kind in (ThreadPoolExecutor, ProcessPoolExecutor):
        with kind(max_workers=2) as pool:
            calls = [loop.run_in_executor(pool, fibonacci, n) for n in (5, 10, 26, 15)]
            print(await asyncio.gather(*calls, return_exceptions=True))
            try:
                await loop.run_in_executor(pool, fibonacci, 30)
            except ValueError as error:
                print("awaited:", error)
            calls = [loop.run_in_executor(pool, fibonacci, n) for n in range(6)]
            print(sorted([await done for done in asyncio.as_completed(calls)]))


if __name__ == "__main__":
    asyncio.run(main())
