"""Every memory keeps every law."""

import inspect

import pytest
import torch

import mnemos.memories
from mnemos.memories.base import Memory
from mnemos.testing import MemorySuite, examples


class TestLaws(MemorySuite):
    @pytest.fixture(params=examples())
    def memory(self, request):
        torch.manual_seed(0)
        return examples()[request.param]()


def test_every_exported_memory_is_held_to_the_laws():
    exported = {
        name
        for name, thing in vars(mnemos.memories).items()
        if isinstance(thing, type) and issubclass(thing, Memory) and not inspect.isabstract(thing)
    }
    assert exported == {name.split("/")[0] for name in examples()}


@pytest.mark.parametrize("name", examples())
def test_an_example_is_what_its_name_says(name):
    assert type(examples()[name]()).__name__ == name.split("/")[0]
