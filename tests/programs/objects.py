"""Instances, methods, enums and data classes of this module go to processes and come back as what they were."""

import dataclasses
import enum
import operator
from concurrent.futures import ProcessPoolExecutor


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


@dataclasses.dataclass(frozen=True)
class Point:
    x: int
    y: int
    colour: Colour = Colour.RED

    def moved(self, dx, dy=0):
        return dataclasses.replace(self, x=self.x + dx, y=self.y + dy)

    @classmethod
    def origin(cls):
        return cls(0, 0, Colour.BLUE)

    @staticmethod
    def name():
        return "point"


class Counter:
    def __init__(self):
        self.count = 0

    def add(self, n):
        self.count += n
        return self.count


def main():
    counter = Counter()
    with ProcessPoolExecutor(max_workers=1) as executor:
        point = executor.submit(Point(1, 2).moved, 10, dy=5).result()
        print(point, type(point) is Point, point == Point(11, 7), point.colour is Colour.RED)
        origin = executor.submit(Point.origin).result()
        print(origin, origin.colour is Colour.BLUE, executor.submit(Point.name).result())
        print(list(executor.map(operator.attrgetter("x"), [Point(3, 4), Point(5, 6)])))
        print([executor.submit(counter.add, n).result() for n in (1, 2, 3)], counter.count)
        counter.add(10)
        print(executor.submit(counter.add, 1).result(), counter.count)


if __name__ == "__main__":
    main()
