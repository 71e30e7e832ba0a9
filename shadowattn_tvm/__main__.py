"""`python -m shadowattn_tvm` is `shadowattn`."""

from .cli import main

if __name__ == "__main__":
    main()
