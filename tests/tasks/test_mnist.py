"""Digits are parsed from their files' bytes, and files that are not theirs are refused."""

import gzip
import os

import pytest
import torch

from mnemos.tasks.mnist import FILES, Digits, idx, mnist


@pytest.fixture(scope="module")
def digits() -> Digits:
    if not os.environ.get("MNEMOS_DATA"):
        pytest.skip("MNEMOS_DATA names no folder with MNIST")
    return mnist()


def content(shape: list[int], elements: bytes, kind: int = 8) -> bytes:
    header = bytes([0, 0, kind, len(shape)])
    return header + b"".join(size.to_bytes(4, "big") for size in shape) + elements


@pytest.mark.parametrize("shape", [[6], [2, 3], [1, 3, 2], [0, 28, 28]])
def test_an_array_is_read_row_by_row(shape):
    expected = torch.arange(torch.Size(shape).numel(), dtype=torch.uint8).view(shape)
    read = idx(content(shape, bytes(expected.flatten().tolist())))
    assert read.dtype == torch.uint8
    assert torch.equal(read, expected)


def test_sizes_are_big_endian_and_of_four_bytes():
    assert idx(content([65536 + 258], bytes(65536 + 258))).shape == (65794,)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (b"", "begins with nothing"),
        (b"\0\0\x08", "begins with 00 00 08"),
        (b"\x1f\x8b\x08\0 a gzip file", "begins with 1f 8b 08 00"),
        (content([2], b"1234", kind=0x0B), "not of type 11"),
        (content([], b"1"), "no header of 0 dimensions"),
        (content([2, 3], b"")[:10], "no header of 2 dimensions: it is of 10 bytes"),
        (content([2, 3], b"12345"), r"6 elements for the shape \[2, 3\] of its header, not 5"),
        (content([2, 3], b"1234567"), "not 7"),
    ],
)
def test_what_is_no_idx_file_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        idx(wrong)


def test_files_that_are_not_mnist_are_refused(tmp_path, monkeypatch):
    monkeypatch.delenv("MNEMOS_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="MNEMOS_DATA"):
        mnist()
    with pytest.raises(FileNotFoundError, match="train-images-idx3-ubyte"):
        mnist(tmp_path)
    (tmp_path / "mnist").mkdir()
    for name in FILES:
        (tmp_path / f"mnist/{name}.gz").write_bytes(gzip.compress(content([1, 28, 28], bytes(784))))
    with pytest.raises(ValueError, match="SHA-256"):
        mnist(tmp_path)


def test_the_digits_are_those_of_mnist(digits):
    assert digits.train_images.shape == (60_000, 28, 28)
    assert digits.test_images.shape == (10_000, 28, 28)
    assert digits.train_images.dtype == digits.test_images.dtype == torch.uint8
    # What is known of MNIST: how often each digit comes, and the mean and deviation of its pixels.
    counts = digits.train_labels.bincount().tolist()
    assert counts == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    counts = digits.test_labels.bincount().tolist()
    assert counts == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    pixels = digits.train_images.flatten().bincount(minlength=256).double() / digits.train_images.numel()
    levels = torch.arange(256).double() / 255
    mean = (pixels * levels).sum()
    deviation = (pixels * (levels - mean).square()).sum().sqrt()
    assert mean.item() == pytest.approx(0.1307, abs=1e-4)
    assert deviation.item() == pytest.approx(0.3081, abs=1e-4)


def test_an_image_lies_beside_its_label(digits):
    assert digits.train_labels[:5].tolist() == [5, 0, 4, 1, 9]
    # A one is narrow and a zero is hollow, upright and in the middle.
    ones, zeros = (digits.test_images[digits.test_labels == digit].float().mean(0) for digit in (1, 0))
    assert ones[14, 14] > 200
    assert zeros[14, 14] < 20
    assert ones.amax(1)[4:24].sum() > 2 * ones.amax(0)[4:24].sum()
