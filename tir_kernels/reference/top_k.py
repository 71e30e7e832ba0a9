"""NumPy twin of top-k."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def top_k(
    scores: npt.NDArray[np.int32] | npt.NDArray[np.floating], visible: npt.NDArray[np.bool_], k: int
) -> npt.NDArray[np.int32]:
    """One row's selection: `scores`, `visible` (n,) -> at most k indices, ascending; the largest
    visible scores, ties to the lower index."""
    candidates = np.nonzero(visible)[0]
    # the negative of an int32 may not fit one
    wide = scores[candidates].astype(np.result_type(scores, np.int64))
    order = np.argsort(-wide, kind="stable")
    return np.sort(candidates[order[:k]]).astype(np.int32)
