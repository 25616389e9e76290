"""Continues a memory in a process of its own: `python -m mnemos.testing.elsewhere` is that process.

One such process serves a whole test session, since importing torch takes longer than most tests. What
it is told is a folder, one per line; what it needs of a memory is its class, its configuration and its
weights. So nothing that a module hides can come along.
"""

import atexit
import functools
import os
import pickle
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mnemos.memories.base import Memory
from mnemos.snapshot import load


def resume(memory: Memory, path: Path, inputs: Tensor, mask: Tensor) -> tuple[Tensor, Any]:
    """The outputs and the state of a new process that opens the file at `path` and runs on from it."""
    with tempfile.TemporaryDirectory() as folder:
        order = {
            "path": sys.path,
            "threads": torch.get_num_threads(),
            "memory": pickle.dumps((type(memory), memory.configuration())),
        }
        (Path(folder) / "order").write_bytes(pickle.dumps(order))
        tensors = {"weights": memory.state_dict(), "file": str(path), "inputs": inputs, "mask": mask}
        torch.save(tensors, Path(folder) / "tensors")
        process = _process()
        assert process.stdin
        assert process.stdout
        process.stdin.write(folder + "\n")
        process.stdin.flush()
        if process.stdout.readline() != "done\n":
            fault = Path(folder) / "fault"
            report = fault.read_text() if fault.exists() else "the process ended"
            raise AssertionError(f"a new process could not continue it:\n{report}")
        with open(Path(folder) / "answer", "rb") as file:
            return pickle.load(file)


@functools.cache
def _process() -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", "mnemos.testing.elsewhere"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    atexit.register(process.communicate)  # an end of input ends it
    return process


def _answer(folder: Path) -> None:
    order = pickle.loads((folder / "order").read_bytes())
    sys.path[:] = order["path"]
    torch.set_num_threads(order["threads"])
    kind, configuration = pickle.loads(order["memory"])
    memory: Memory = kind(**configuration)
    tensors = torch.load(folder / "tensors")
    memory.to(tensors["inputs"].device).load_state_dict(tensors["weights"])
    memory.eval()
    with torch.no_grad():
        answer = memory(tensors["inputs"], load(tensors["file"], memory), mask=tensors["mask"])
    (folder / "answer").write_bytes(pickle.dumps(answer))


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a memory prints must not be taken for an answer
    for line in sys.stdin:
        folder = Path(line.rstrip("\n"))
        try:
            _answer(folder)
            print("done", file=answers, flush=True)
        except Exception:
            (folder / "fault").write_text(traceback.format_exc())
            print("failed", file=answers, flush=True)


if __name__ == "__main__":
    main()
