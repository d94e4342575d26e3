"""Draw the Mandelbrot set by rows, with a partial function and a chunk size."""

import functools
from concurrent.futures import ProcessPoolExecutor


def row(y, *, width, depth):
    line = []
    for x in range(width):
        c = complex(3 * x / width - 2.2, y)
        z, n = 0j, 0
        while abs(z) <= 2 and n < depth:
            z, n = z * z + c, n + 1
        line.append(" .:-=+*#%@"[n * 9 // depth])
    return "".join(line).rstrip()


def main():
    draw = functools.partial(row, width=64, depth=40)
    with ProcessPoolExecutor(max_workers=2) as executor:
        print("\n".join(executor.map(draw, [k / 10 for k in range(-11, 12)], chunksize=4)))


if __name__ == "__main__":
    main()
