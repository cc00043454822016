"""Bad input on grids of ranks that share a GPU: the same named error on every rank."""

from __future__ import annotations

from typing import Any

import pytest

from support.bad_input import CASES, check_afterwards, check_case

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("name", CASES)
def test_case(bad_input_results: Any, name: str) -> None:
    check_case(bad_input_results((2, 2), "cuda"), name, (2, 2))


def test_afterwards(bad_input_results: Any) -> None:
    check_afterwards(bad_input_results((2, 2), "cuda"))
