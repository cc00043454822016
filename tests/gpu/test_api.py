"""pyFFTMatvec's interface on ranks that share a GPU, every call compared with NumPy."""

from __future__ import annotations

from typing import Any

import pytest

from grids.test_api import ApiSuite
from support import api

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module", params=[(1, 1), (2, 2)], ids=lambda grid: f"{grid[0]}x{grid[1]}")
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return api.run(request.param, "cuda", tmp_path_factory.mktemp("api"))


class TestApi(ApiSuite):
    """The suite, with collectives staged in host memory."""

    def test_backend(self, results: Any) -> None:
        assert {rank["comms"]["device"] is None for rank in results} == {False}
