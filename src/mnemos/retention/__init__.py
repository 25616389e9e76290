"""What to let go: eviction policies as small data."""

from mnemos.retention.attention import attention_sinks, heavy_hitters
from mnemos.retention.oracle import belady_hits, hits
from mnemos.retention.policy import (
    POLICY_NAMES,
    Policy,
    Usage,
    decayed_strength,
    first_in_first_out,
    least_often_used,
    least_recently_used,
    least_surprising,
    most_redundant,
    named,
    order_of_departure,
    reservoir,
)

__all__ = [
    "POLICY_NAMES",
    "Policy",
    "Usage",
    "attention_sinks",
    "belady_hits",
    "decayed_strength",
    "first_in_first_out",
    "heavy_hitters",
    "hits",
    "least_often_used",
    "least_recently_used",
    "least_surprising",
    "most_redundant",
    "named",
    "order_of_departure",
    "reservoir",
]
