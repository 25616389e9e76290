"""A consolidator in Lightning's own loop does what it does in a plain one."""

import lightning.pytorch as lightning
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import mnemos
from mnemos.consolidation import AGEM, EWC, SI, Consolidator, Episodes, Replay
from mnemos.training import Consolidation

# What Lightning says of its own means, and of a run as small as this.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:The number of training batches.*"),
]


class Module(lightning.LightningModule):
    def __init__(self, network, consolidator):
        super().__init__()
        self.network, self.consolidator = network, consolidator

    def training_step(self, batch, index):
        inputs, targets = batch
        return self.consolidator.loss(cross_entropy(self.network(inputs), targets), inputs)

    def configure_optimizers(self):
        return torch.optim.Adam(self.network.parameters(), lr=1e-2)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))


def context(number):
    generator = torch.Generator().manual_seed(number)
    inputs = torch.randn(20, 4, generator=generator) + number
    return DataLoader(TensorDataset(inputs, torch.randint(3, (20,), generator=generator)), batch_size=5)


TERMS = {
    "penalties": lambda: [EWC(10.0), SI(5.0)],
    "replay": lambda: [Replay(Episodes(mnemos.open(":memory:"), 10), rows=4)],
    "a-gem": lambda: [AGEM(Episodes(mnemos.open(":memory:"), 10), rows=4)],
}


@pytest.mark.parametrize("name", TERMS)
def test_as_in_a_plain_loop(name, tmp_path):
    plain, told = network(), network()
    one, other = Consolidator(plain, TERMS[name]()), Consolidator(told, TERMS[name]())
    module = Module(told, other)
    for number in range(3):
        batches = context(number)
        optimizer = torch.optim.Adam(plain.parameters(), lr=1e-2)
        one.attach(optimizer)
        for inputs, targets in batches:
            optimizer.zero_grad()
            one.loss(cross_entropy(plain(inputs), targets), inputs).backward()
            optimizer.step()
            one.observe(inputs, targets)
        one.end_context(batches)
        trainer = lightning.Trainer(
            max_epochs=1,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=tmp_path,
            callbacks=[Consolidation(other)],
        )
        trainer.fit(module, batches)
    for left, right in zip(plain.parameters(), told.parameters(), strict=True):
        assert torch.equal(left, right)
    assert one.contexts == other.contexts == 3
    assert not other.attached
