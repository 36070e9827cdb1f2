from collections.abc import Callable
from pathlib import Path

import pytest
from torch import Tensor


def idx_bytes(values: Tensor) -> bytes:
    """What an IDX file that holds `values` (uint8) consists of."""
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    return bytes([0, 0, 8, values.ndim]) + sizes + values.numpy().tobytes()


@pytest.fixture
def write_idx() -> Callable[[Path, Tensor], bytes]:
    def write(path: Path, values: Tensor) -> bytes:
        content = idx_bytes(values)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return content

    return write
