"""The conformance kit: does a method keep the contract, on tiny GPT-2 and Llama teachers, on one CPU?

A third party's test suite needs one line of it:

    from methods.conformance import assert_conforms

    def test_it_conforms():
        assert_conforms("outer_dense")
"""

from methods.conformance.bench import Bench, Check, NotApplicable, Sample
from methods.conformance.kit import (
    BUDGETS,
    FAST_BUDGETS,
    FAST_TEACHERS,
    Finding,
    assert_conforms,
    check,
    check_method,
)

__all__ = [
    "BUDGETS",
    "FAST_BUDGETS",
    "FAST_TEACHERS",
    "Bench",
    "Check",
    "Finding",
    "NotApplicable",
    "Sample",
    "assert_conforms",
    "check",
    "check_method",
]
