"""A notebook, run by a real kernel."""

from __future__ import annotations

import asyncio
from typing import Any

import nbformat
from _scripts import LIMIT
from jupyter_client.manager import start_new_async_kernel
from nbclient import NotebookClient


def text(cell: Any, stream: str = "stdout") -> str:
    """What a cell has on one of the streams."""
    return "".join(out.text for out in cell.outputs if out.output_type == "stream" and out.name == stream)


def test_a_notebooks_functions_run_and_their_output_and_progress_are_in_the_cell() -> None:
    cells = [
        "import fanmap, os\nfactor = 2\ndef work(x):\n    print('working on', x)\n    return factor * x",
        "list(fanmap.map(work, range(4), executor='processes'))",
        "factor = 3\nlist(fanmap.map(lambda x: work(x) + 1, range(2), executor='processes'))",
        "_ = os.write(1, b'')\nsum(fanmap.map(abs, range(100), progress='counting', executor='processes'))",
        "def shout(x):\n    os.system('echo shell ' + str(x))\nfanmap.for_each(shout, [1], tag_output=True)",
        "with fanmap.ProcessPoolExecutor(2) as pool:\n    futures = [pool.submit(work, x) for x in range(3)]",
        "def inverse(x):\n    return 1 / x  # of zero\n\nlist(fanmap.map(inverse, [0], executor='processes'))",
        "fanmap.shutdown()",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    notebook.cells[-2].metadata["tags"] = ["raises-exception"]
    # In a loop of its own, which is closed: `execute` would keep one.
    asyncio.run(NotebookClient(notebook, timeout=LIMIT, kernel_name="python3").async_execute())
    _, first, again, counted, shell, submitted, failed, _ = notebook.cells
    assert first.outputs[-1].data["text/plain"] == "[0, 2, 4, 6]"
    assert sorted(text(first).splitlines()) == [f"working on {x}" for x in range(4)]
    assert again.outputs[-1].data["text/plain"] == "[1, 4]"
    assert sorted(text(again).splitlines()) == ["working on 0", "working on 1"]
    assert counted.outputs[-1].data["text/plain"] == "4950"
    assert "counting: 100%" in text(counted, "stderr")
    assert text(shell).splitlines()[0].endswith("] shell 1")
    assert sorted(text(submitted).splitlines()) == [f"working on {x}" for x in range(3)]
    # What the worker sends as text has the cell's line, though there is no file to read it from.
    shown = "\n".join(failed.outputs[-1].traceback)
    assert ", line 2, in inverse\n    return 1 / x  # of zero\nZeroDivisionError" in shown, shown


async def _interrupted() -> None:
    """Interrupt a cell, and use its pool in another."""
    manager, client = await start_new_async_kernel(kernel_name="python3", startup_timeout=LIMIT)
    try:
        code = """
import fanmap, time
def slow(x):
    print("started", x)
    time.sleep(1000)
list(fanmap.map(slow, range(10), ordered=False, executor="processes"))
"""
        # Else what is sent soon after the error is aborted.
        sent = client.execute(code, stop_on_error=False)
        while True:
            message = await client.get_iopub_msg(timeout=LIMIT)
            if message["msg_type"] == "stream" and "started" in message["content"]["text"]:
                break
        await manager.interrupt_kernel()
        while (reply := await client.get_shell_msg(timeout=LIMIT))["parent_header"]["msg_id"] != sent:
            pass  # of what the client asked to know whether the kernel is ready
        assert (reply["content"]["status"], reply["content"]["ename"]) == ("error", "KeyboardInterrupt")
        code = "assert list(fanmap.map(abs, range(100), executor='processes')) == list(range(100))"
        reply = await client.execute_interactive(code, timeout=LIMIT, output_hook=lambda _: None)
        assert reply["content"]["status"] == "ok", reply["content"]
    finally:
        client.stop_channels()
        await manager.shutdown_kernel(now=True)


def test_interrupting_a_cell_ends_its_map_and_the_pool_is_usable_afterwards() -> None:
    # In a loop of its own, as above.
    asyncio.run(_interrupted())
