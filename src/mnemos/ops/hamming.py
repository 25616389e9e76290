"""Packed bits and exact Hamming distances: which of many addresses lie within a radius of a query.

Bits lie in int64 words, the first in the lowest place of the first word, the last word filled up with zeros.
Addresses that are searched lie word by word, (words, slots): the same word of all of them side by side.

Measured on one core of a Xeon with AMX, 100,000 addresses of 512 bits, milliseconds a query: products of ±1
in float32 take 16 for one query and 1.2 in a batch; counting the ones of exclusive ors takes 0.6 to 0.9 for
any number; int8 products of bits that are unpacked a block at a time take 0.19 in a batch of 256. Hence
counting for a few queries, and int8 products for many. bfloat16 products are as fast as int8's where the
processor has them, but 60 times slower where it has not (simulated: AVX2); int8's then still match counting.
"""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

FEW = 10  # queries: below, unpacking all addresses takes longer than counting
COUNTED = 32768  # addresses counted together: long enough for the calls not to matter
BLOCK = 512  # addresses unpacked together, so that they stay in the processor's second cache
TOGETHER = 256  # queries multiplied together, for the same reason


def pack(bits: Bool[Tensor, "*shape bits"]) -> Int[Tensor, "*shape words"]:
    """Booleans as int64 words, 64 to a word."""
    padding = -bits.shape[-1] % 64
    if bits.device.type == "cpu" and not torch.compiler.is_compiling():
        packed = np.packbits(bits.numpy(), axis=-1, bitorder="little")
        words = -(-bits.shape[-1] // 64)
        filled = np.zeros((*bits.shape[:-1], 8 * words), np.uint8)
        filled[..., : packed.shape[-1]] = packed
        return torch.from_numpy(filled.view(np.int64))
    places = torch.arange(64, device=bits.device)
    words = torch.nn.functional.pad(bits, (0, padding)).unflatten(-1, (-1, 64))
    return (words.long() << places).sum(-1)  # distinct powers of two: a sum is an or, the sign bit included


def unpack(words: Int[Tensor, "*shape words"]) -> Bool[Tensor, "*shape bits"]:
    """The booleans of int64 words, with those that filled up the last."""
    places = torch.arange(64, device=words.device)
    return (words.unsqueeze(-1) >> places & 1).bool().flatten(-2)


def hamming_distances_naive(
    queries: Int[Tensor, "queries words"], addresses: Int[Tensor, "words slots"]
) -> Int[Tensor, "queries slots"]:
    """By products of ±1 in float32, exact up to 2^24 bits, on any device: n bits differ in (n - q·h) / 2."""
    signs = unpack(queries).float() * 2 - 1
    blocks = addresses.split(BLOCK, 1)
    products = torch.cat([signs @ (unpack(block.mT).float() * 2 - 1).mT for block in blocks], dim=1)
    return ((64 * addresses.shape[0] - products) / 2).int()


def hamming_distances(
    queries: Int[Tensor, "queries words"], addresses: Int[Tensor, "words slots"]
) -> Int[Tensor, "queries slots"]:
    """How many bits of every query differ from every address, as int32."""
    if queries.device.type != "cpu":
        return hamming_distances_naive(queries, addresses)
    distances = torch.empty(len(queries), addresses.shape[1], dtype=torch.int32)
    for first, start, alike, needed in _blocks(queries, addresses):
        block = torch.from_numpy(needed - alike).mT
        distances[first : first + block.shape[0], start : start + block.shape[1]] = block
    return distances


def within_radius(
    queries: Int[Tensor, "queries words"], addresses: Int[Tensor, "words slots"], radius: int
) -> Int[Tensor, "pairs pair"]:
    """Every (query, slot) whose addresses differ in at most `radius` bits, in ascending order."""
    if queries.device.type != "cpu":
        return (hamming_distances_naive(queries, addresses) <= radius).nonzero()
    slots, found = addresses.shape[1], [np.empty(0, np.int64)]
    for first, start, alike, needed in _blocks(queries, addresses):
        slot, query = np.divmod(np.flatnonzero(alike >= needed - radius), len(needed))
        found.append((query + first) * slots + slot + start)
    return torch.from_numpy(np.stack(np.divmod(np.sort(np.concatenate(found)), slots), axis=1))


def _blocks(queries: Tensor, addresses: Tensor) -> Iterator[tuple[int, int, np.ndarray, np.ndarray]]:
    """A block at a time: (first query, first slot, a of shape (slots, queries), b of shape (queries)).

    The distances are b - a. To compare a with b - radius spares a subtraction for every one of them.
    """
    words, lines = queries.numpy().view(np.uint64), addresses.numpy().view(np.uint64)
    if len(words) < FEW:
        for start in range(0, lines.shape[1], COUNTED):
            distances = _counted(words, lines[:, start : start + COUNTED])
            yield 0, start, -distances.T, np.zeros(len(words), np.int32)
        return
    bits = _ones(words)
    signs = (bits * 2 - 1).split(TOGETHER)
    lengths = bits.sum(1, dtype=torch.int32).split(TOGETHER)
    for start in range(0, lines.shape[1], BLOCK):
        ones = _ones(np.ascontiguousarray(lines[:, start : start + BLOCK].T))
        for number, (sign, length) in enumerate(zip(signs, lengths, strict=True)):
            # Of the address's ones those that the query has count +1, the others -1.
            yield number * TOGETHER, start, torch._int_mm(ones, sign.mT).numpy(), length.numpy()


def _ones(words: np.ndarray) -> Tensor:
    """The bits of (rows, words), one to a byte."""
    return torch.from_numpy(np.unpackbits(words.view(np.uint8), axis=1, bitorder="little").view(np.int8))


def _counted(queries: np.ndarray, lines: np.ndarray) -> np.ndarray:
    """Distances of (queries, words) from (words, slots): the ones of every word's exclusive or."""
    distances = np.zeros((len(queries), lines.shape[1]), np.int32)
    differing = np.empty_like(lines[0])
    ones, sums = np.empty((2, lines.shape[1]), np.uint8)
    for query, distance in zip(queries, distances, strict=True):
        for start in range(0, len(lines), 3):  # the ones of three words fit into a byte
            sums.fill(0)
            for word, line in zip(query[start : start + 3], lines[start : start + 3], strict=True):
                np.bitwise_xor(line, word, out=differing)
                np.bitwise_count(differing, out=ones)
                sums += ones
            distance += sums
    return distances
