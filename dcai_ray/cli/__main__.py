"""`python -m dcai_ray.cli`."""

import sys

from dcai_ray.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
