"""What workers print."""

from __future__ import annotations

from pathlib import Path

import pytest
from _scripts import good, run

PRINTS = """
import fanmap, multiprocessing, sys
def work(x):
    for k in range(20):
        print("worker", x, k, "." * 100)
        print("error", x, k, "." * 100, file=sys.stderr)
if __name__ == "__main__":
    context = None if sys.argv[1] == "template" else multiprocessing.get_context(sys.argv[1])
    with fanmap.ProcessPoolExecutor(4, context) as pool:
        list(pool.map(work, range(200)))
"""
EXPECTED = sorted(f"{{}} {x} {k} {'.' * 100}" for x in range(200) for k in range(20))


@pytest.mark.parametrize("unbuffered", [False, True])
@pytest.mark.parametrize("way", ["template", "fork", "forkserver", "spawn"])
def test_lines_that_workers_print_into_a_pipe_never_mix(
    way: str, unbuffered: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    if unbuffered:
        monkeypatch.setenv("PYTHONUNBUFFERED", "1")
    script = tmp_path / "program.py"
    script.write_text(PRINTS)
    result = run("", way, command=(str(script),))
    assert result.status == 0
    for text, word in ((result.out, "worker"), (result.err, "error")):
        assert sorted(text.splitlines()) == sorted(line.format(word) for line in EXPECTED)


def test_a_line_is_out_before_its_task_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    out = good("""
        import fanmap, os
        def work(x):
            print("line", x)
            os.write(1, b"after\\n")
            os._exit(3)
        with fanmap.ProcessPoolExecutor(1) as pool:
            assert pool.submit(work, 1).exception(60).exitcode == 3
    """)
    assert out == "line 1\nafter\n"
