"""A Llama that tests attach to."""

import pytest
from small_models import small


@pytest.fixture(scope="session")
def shared_llama():
    return small("Llama")


@pytest.fixture
def llama(shared_llama):
    """One model for all tests: each takes its memories off again."""
    yield shared_llama
    attachment = getattr(shared_llama, "mnemos_attachment", None)
    if attachment is not None:
        attachment.detach()
    shared_llama.eval()
