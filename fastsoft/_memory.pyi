from typing import Any

import numpy as np

lines: object

def empty(shape: tuple[int, ...], dtype: np.dtype[Any], large: bool = True) -> np.ndarray[Any, Any]: ...
def release() -> None: ...
