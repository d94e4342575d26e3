"""`python -m fanmap doctor`: what fanmap finds on this machine."""

from __future__ import annotations

import argparse


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m fanmap", description="A plain map made parallel.")
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)
    commands.add_parser(
        "doctor", help="show what there is to work with here: cores, memory, interpreter, start methods"
    )
    parser.parse_args()
    from ._doctor import report

    for line in report():
        print(line, flush=True)


if __name__ == "__main__":
    main()
