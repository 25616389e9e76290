"""What long work tells of its progress."""

from mnemos.progress import between, silent


def test_a_part_of_a_part_tells_its_share_of_the_whole() -> None:
    seen: list[tuple[float, str]] = []
    half = between(lambda share, what: seen.append((share, what)), 0.5, 1.0)
    between(half, 0.0, 0.5)(0.5, "reading")
    half(1.0, "done")
    silent(0.5, "unseen")
    assert seen == [(0.625, "reading"), (1.0, "done")]
