from pathlib import Path

import pytest

from tests.front_door.doorstep import Doorstep, make_doorstep


@pytest.fixture
def doorstep(tmp_path: Path) -> Doorstep:
    return make_doorstep(tmp_path)
