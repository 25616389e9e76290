import torch

import mnemos
from mnemos.consolidation import Episodes
from mnemos.studies.systems import alone_and_together, recalled


def test_a_store_knows_what_it_has_met() -> None:
    episodes = Episodes(mnemos.open(":memory:", metric="cosine"))
    episodes.write(torch.eye(3), torch.arange(3))
    targets, known = recalled(episodes, torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.2, 1.0]]))
    assert targets.tolist() == [1, 2]
    assert known.tolist() == [True, False]


def test_the_store_answers_what_it_knows_and_the_network_the_rest() -> None:
    columns = alone_and_together(
        torch.tensor([1.0, 0.0, 0.0, 1.0]),
        torch.tensor([0.0, 1.0, 0.0, 0.0]),
        torch.tensor([True, False, False, False]),
    )
    assert columns == {"store_only": 0.5, "cortex_only": 0.25, "both": 0.5}
