"""A table in a file answers as one in memory."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from mnemos.memories import MappedTable


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_rows_come_back_as_they_were_written(tmp_path, dtype):
    table = nn.Embedding(50, 7, dtype=dtype)
    MappedTable.write(tmp_path / "table.npy", table.weight.split(16))
    mapped = MappedTable(tmp_path / "table.npy")
    rows = torch.randint(50, (3, 4, 2))
    assert torch.equal(mapped(rows), table(rows).float())
    assert (mapped.num_embeddings, mapped.embedding_dim) == (50, 7)
    assert np.array_equal(np.load(tmp_path / "table.npy"), table.weight.detach().numpy())


def test_what_is_carried_elsewhere_is_the_path(tmp_path):
    MappedTable.write(tmp_path / "table.npy", [torch.randn(100_000, 4)])
    mapped = MappedTable(tmp_path / "table.npy")
    assert not list(mapped.parameters())
    assert not mapped.state_dict()
    assert len(pickle.dumps(mapped)) < 5000
    for other in (pickle.loads(pickle.dumps(mapped)), copy.deepcopy(mapped)):
        assert isinstance(other._rows, np.memmap)
        assert torch.equal(other(torch.tensor([77])), mapped(torch.tensor([77])))


def test_a_file_larger_than_what_is_written_of_it(tmp_path):
    """64 GB with holes, which would not fit: of it, three rows are read."""
    rows, width = 2**28, 64
    with open(tmp_path / "table.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f4", "fortran_order": False, "shape": (rows, width)}
        )
        start = file.tell()
        file.seek(start + 4 * width * (rows - 1))
        file.write(np.full(width, 3.5, dtype="<f4").tobytes())
    mapped = MappedTable(tmp_path / "table.npy")
    assert mapped(torch.tensor([0, 2**27, rows - 1]))[:, 5].tolist() == [0.0, 0.0, 3.5]


def test_what_is_no_table_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError):
        MappedTable(tmp_path / "missing.npy")
    np.save(tmp_path / "numbers.npy", np.arange(5))
    with pytest.raises(ValueError, match="must hold a matrix of float32 or float16, not int64"):
        MappedTable(tmp_path / "numbers.npy")
    with pytest.raises(ValueError, match="parts must be alike"):
        MappedTable.write(tmp_path / "table.npy", [torch.randn(2, 3), torch.randn(2, 4)])
    with pytest.raises(ValueError, match="at least one part"):
        MappedTable.write(tmp_path / "table.npy", [])
