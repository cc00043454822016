"""Bad input on one rank, in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support import bad_input
from support.bad_files import prepare


@pytest.fixture(
    scope="module", params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)], ids=lambda backend: str(backend)
)
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder: Path = tmp_path_factory.mktemp("bad-input")
    prepare(folder)
    return bad_input.run_cases(((1, 1), request.param, folder))


@pytest.mark.parametrize("name", [name for name in bad_input.CASES if name not in bad_input.DISTRIBUTED_CASES])
def test_case(found: dict[str, Any], name: str) -> None:
    bad_input.check_case([found], name, (1, 1))


def test_afterwards(found: dict[str, Any]) -> None:
    bad_input.check_afterwards([found])
