"""`python -m shadowattn_tvm.mlc compile ...`: as `shadowattn mlc_llm compile ...`."""

from __future__ import annotations

import sys

from tir_kernels.parsing import remember_evaluated_code

from ..errors import ShadowAttnError
from .command import run

EXIT_USER_MISTAKE = 2


def main() -> None:
    """Exits 2, with one message, for the user's mistakes."""
    remember_evaluated_code()
    try:
        run(sys.argv[1:])
    except ShadowAttnError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(EXIT_USER_MISTAKE)


if __name__ == "__main__":
    main()
