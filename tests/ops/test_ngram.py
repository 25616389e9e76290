"""Addresses of n-grams: against plain integers, and what must not depend on anything."""

import torch

from mnemos.ops.ngram import ABSENT, canonical_ids, ngram_rows, primes_from, sign_codes


def test_rows_are_products_combined_by_exclusive_or_modulo_a_prime():
    suffixes = torch.randint(0, 2**31 - 1, (2, 5, 3))
    multipliers, sizes = [2**31 - 1, 12345677, 987654321], [[11, 13], [17, 1000003]]
    rows = ngram_rows(suffixes, (1, 3), torch.tensor(multipliers), torch.tensor(sizes))
    for place in range(2):
        for step in range(5):
            one, two, three = (int(token) + 1 for token in suffixes[place, step])
            unigram = one * multipliers[0]
            trigram = unigram ^ two * multipliers[1] ^ three * multipliers[2]
            expected = [unigram % 11, 11 + unigram % 13, 24 + trigram % 17, 41 + trigram % 1000003]
            assert rows[place, step].tolist() == expected


def test_what_is_absent_is_not_a_token():
    multipliers, sizes = torch.tensor([3, 5, 7]), torch.tensor([[1000003]])
    suffixes = torch.tensor([[[4, ABSENT, ABSENT], [4, 0, ABSENT], [4, 0, 0]]])
    rows = ngram_rows(suffixes, (3,), multipliers, sizes)
    assert len(set(rows.flatten().tolist())) == 3


def test_two_ngrams_that_meet_in_one_share_part_in_the_next():
    sizes = torch.tensor([primes_from(500, 8)])
    suffixes = torch.randint(0, 50_000, (1, 4000, 2))
    rows = ngram_rows(suffixes, (2,), torch.tensor([1640531527, 2246822519 >> 1 | 1]), sizes)[0]
    pairs = (rows.unsqueeze(0) == rows.unsqueeze(1)).sum(2).triu(1)
    shares = torch.bincount(pairs.flatten(), minlength=9)[1:] / (4000 * 3999 / 2)
    assert abs(shares[0].item() - 8 / 510) < 0.002  # one head: as by chance
    assert shares[1].item() < 3 * 28 / 510**2
    assert shares[3:].sum() < 1e-6


def test_primes_ascend_from_the_start():
    assert primes_from(0, 5) == [2, 3, 5, 7, 11]
    assert primes_from(24, 3) == [29, 31, 37]
    assert primes_from(29, 1) == [29]


def test_signs_are_bits():
    inputs = torch.tensor([[[1.0, -1.0, 0.0, 3.0]], [[-1.0, 2.0, 1e-20, -3.0]]])
    assert sign_codes(inputs).tolist() == [[1 + 8], [2 + 4]]
    assert sign_codes(inputs, bits=2).tolist() == [[1], [2]]


def test_spellings_of_a_word_have_one_id():
    texts = [
        "Apple",
        " apple",
        "APPLE ",
        "àpple",
        "pear",
        " ",
        "\n",
        "\t ",
        "\ufffd",
        "\ufffd",
        "ﬁg",
        "fig",
        "",
        "pear",
    ]
    assert canonical_ids(texts).tolist() == [0, 0, 0, 0, 1, 2, 2, 2, 3, 4, 5, 5, 6, 1]
