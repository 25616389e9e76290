"""The address of an n-gram: the last n tokens, hashed to a row of each of several tables.

Cheng et al. 2026, "Conditional Memory via Scalable Lookup" (Engram). What a token is, is said by
an integer; `canonical_ids` gives one integer to all spellings of a word, `sign_codes` makes one out of a
vector where there are no tokens.
"""

import re
import unicodedata
from collections.abc import Sequence
from functools import reduce
from math import isqrt

import torch
from jaxtyping import Float, Int
from torch import Tensor

ABSENT = -1  # the token before the first


def ngram_rows(
    suffixes: Int[Tensor, "batch time history"],
    orders: Sequence[int],
    multipliers: Int[Tensor, " history"],
    sizes: Int[Tensor, "orders heads"],
) -> Int[Tensor, "batch time found"]:
    """The row that every order and head looks at, in one table in which their shares lie one after the other.

    The tokens of an n-gram are multiplied each by its place's multiplier, and combined by exclusive or. The
    remainders by different primes are then hashes of their own: two n-grams that meet in one head's share
    part in the next.

    Args:
        suffixes: the last tokens at every step, the newest first, from 0 to 2^31; `ABSENT` where is none.
        orders: how many of them make each n-gram.
        multipliers: odd numbers below 2^31, so that no product leaves 64 bits.
        sizes: rows of each share, primes.
    """
    mixed = ((suffixes + 1) * multipliers).unbind(2)  # what is absent is 0, and changes nothing
    hashes = torch.stack([reduce(torch.bitwise_xor, mixed[:order]) for order in orders], dim=2)
    starts = sizes.flatten().cumsum(0).view_as(sizes) - sizes
    return (hashes.unsqueeze(3) % sizes + starts).flatten(2)


def primes_from(start: int, count: int) -> list[int]:
    """The first `count` primes that are not below `start`."""
    primes: list[int] = []
    candidate = max(start, 2)
    while len(primes) < count:
        if all(candidate % divisor for divisor in range(2, isqrt(candidate) + 1)):
            primes.append(candidate)
        candidate += 1
    return primes


def sign_codes(inputs: Float[Tensor, "batch time input"], bits: int = 16) -> Int[Tensor, "batch time"]:
    """A token for every vector: the signs of its first coordinates, as bits of a number.

    Near vectors have mostly equal codes. No product is taken, so that the code is the same on every device
    and in every batch; it has no gradient.
    """
    positive = (inputs[..., :bits] > 0).long()
    return (positive << torch.arange(positive.shape[2], device=inputs.device)).sum(2)


def canonical_ids(texts: Sequence[str]) -> Int[Tensor, " vocabulary"]:
    """One id for all tokens of a vocabulary that say the same: `tokens = canonical_ids(texts)[tokens]`.

    Case, accents, compatibility forms (NFKC) and white space around a token make no difference.
    A token of white space only stays one; a piece of a character, which is no text, stays itself.

    Args:
        texts: what each token decodes to by itself, in the order of their ids.

    Returns:
        New ids by old id, numbered from 0 in the order of their first token.
    """
    known: dict[str | int, int] = {}
    return torch.tensor(
        [known.setdefault(_plain(text, token), len(known)) for token, text in enumerate(texts)]
    )


def _plain(text: str, token: int) -> str | int:
    if "\N{REPLACEMENT CHARACTER}" in text:
        return token
    letters = unicodedata.normalize("NFD", unicodedata.normalize("NFKC", text))
    bare = "".join(letter for letter in letters if unicodedata.category(letter) != "Mn").lower()
    return re.sub(r"\s+", " ", bare).strip() or (" " if text.isspace() else text)
