"""The conformance kit of tasks: does a protocol or a classification keep the contract, on tiny models, on one CPU?

A third party's test suite needs one line of it:

    from tasks.conformance import assert_conforms

    def test_it_conforms():
        assert_conforms("house_style.token_ppl.v1")
"""

from tasks.conformance.bench import Bench, Check, NotApplicable
from tasks.conformance.kit import Finding, assert_conforms, check, check_task

__all__ = ["Bench", "Check", "Finding", "NotApplicable", "assert_conforms", "check", "check_task"]
