"""MNIST: 70,000 handwritten digits, of 28 by 28 pixels.

LeCun, Bottou, Bengio & Haffner 1998, "Gradient-based learning applied to document recognition". The four
files are IDX: a magic number that says the type of the elements and how many dimensions there are, then the
dimensions and the elements, all of it big-endian.
"""

import gzip
import math
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from mnemos.tasks.files import data_file

ADDRESS = "https://ossci-datasets.s3.amazonaws.com/mnist"
# Of the unpacked bytes, in the order of `Digits`.
FILES = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
UNSIGNED_BYTE = 8  # IDX's code of the only type of elements that MNIST has


class Digits(NamedTuple):
    """Images, paper 0 and ink up to 255, and the digit that each shows, 0 to 9."""

    train_images: UInt8[Tensor, "train height width"]
    train_labels: Int64[Tensor, " train"]
    test_images: UInt8[Tensor, "test height width"]
    test_labels: Int64[Tensor, " test"]


def mnist(root: str | Path | None = None, *, download: bool = False) -> Digits:
    """The 60,000 digits to learn from and the 10,000 to be judged by.

    Args:
        root: a data folder that holds mnist/train-images-idx3-ubyte.gz and its three neighbours; the
            environment's MNEMOS_DATA if None.
        download: whether to fetch the files, 11 MB, if they are not there.

    Raises:
        FileNotFoundError: there is no such file. ValueError: it is another file.
    """
    arrays = []
    for name, sha256 in FILES.items():
        file = data_file(
            f"mnist/{name}.gz", sha256, f"{ADDRESS}/{name}.gz", root, download=download, gzipped=True
        )
        arrays.append(idx(gzip.decompress(file.read_bytes())))
    train_images, train_labels, test_images, test_labels = arrays
    return Digits(train_images, train_labels.long(), test_images, test_labels.long())


def idx(content: bytes) -> UInt8[Tensor, "..."]:
    """The array that an IDX file of unsigned bytes holds.

    Raises:
        ValueError: it is no such file, or is not as long as its header says.
    """
    if len(content) < 4 or content[:2] != b"\0\0":
        raise ValueError(f"content is no IDX file: it begins with {content[:4].hex(' ') or 'nothing'}")
    kind, dimensions = content[2], content[3]
    if kind != UNSIGNED_BYTE:
        raise ValueError(f"content must be of unsigned bytes, IDX's type {UNSIGNED_BYTE}, not of type {kind}")
    start = 4 + 4 * dimensions
    if not dimensions or len(content) < start:
        raise ValueError(f"content has no header of {dimensions} dimensions: it is of {len(content)} bytes")
    shape = [int.from_bytes(content[at : at + 4], "big") for at in range(4, start, 4)]
    if len(content) - start != math.prod(shape):
        raise ValueError(
            f"content must have {math.prod(shape)} elements for the shape {shape} of its header, "
            f"not {len(content) - start}"
        )
    # A bytearray, as bytes could not be written to; with its header, as an empty one is refused.
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)[start:].view(shape)
