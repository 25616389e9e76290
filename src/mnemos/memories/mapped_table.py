"""A table of rows that stays in its file: for memories that read a few rows of very many."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


@final
class MappedTable(nn.Module):
    """In the place of an `nn.Embedding` that has been trained: reads rows of a file, as large as the disk.

    The file is numpy's `.npy`, written by `MappedTable.write` or `numpy.save`. It is mapped and never read as
    a whole: what is in memory is what the operating system keeps of the rows that were asked for. The rows
    are not parameters: they are not trained, not moved with the module and not in its `state_dict`. Reading
    is not traced by `torch.compile`.

    Args:
        path: a file that holds a matrix of float32 or float16.

    Raises:
        FileNotFoundError: there is no such file. ValueError: it holds something else.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self.path = Path(path)
        self._open()

    def _open(self) -> None:
        self._rows: np.ndarray = np.load(self.path, mmap_mode="r", allow_pickle=False)
        if self._rows.ndim != 2 or self._rows.dtype not in (np.float32, np.float16):
            found = f"{self._rows.dtype} of shape {self._rows.shape}"
            raise ValueError(f"{self.path} must hold a matrix of float32 or float16, not {found}")
        self.num_embeddings, self.embedding_dim = self._rows.shape

    def forward(self, rows: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape width"]:
        """The rows of those numbers, in float32, on the device of the numbers."""
        found = self._rows[rows.cpu().numpy()]  # a copy: a view of the mapping would be read-only
        return torch.from_numpy(found).to(rows.device, torch.float32)

    @staticmethod
    def write(path: str | Path, parts: Iterable[Float[Tensor, "_ width"]]) -> None:
        """Writes a table part by part, so that it never has to be in memory as a whole.

        Args:
            path: the file, replaced if there is one.
            parts: the rows in their order, all of one dtype and width; float32 or float16.
        """
        with open(path, "wb") as file:
            header: dict[str, Any] = {}
            for part in parts:
                rows = part.detach().cpu().contiguous().numpy()
                if not header:
                    header = {"descr": rows.dtype.str, "fortran_order": False, "shape": (0, rows.shape[1])}
                    np.lib.format.write_array_header_1_0(file, header)
                if rows.dtype.str != header["descr"] or rows.shape[1] != header["shape"][1]:
                    found = f"{rows.dtype} of width {rows.shape[1]}"
                    raise ValueError(f"parts must be alike: {found} follows {header}")
                rows.tofile(file)
                header["shape"] = (header["shape"][0] + len(rows), rows.shape[1])
            if not header:
                raise ValueError("parts must hold at least one part")
            file.seek(0)
            np.lib.format.write_array_header_1_0(file, header)  # the room for the number of rows was kept

    def extra_repr(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}"

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_rows"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._open()
