"""python -m gmm_jax is the command gmm-jax."""

import sys

from .cli import main

sys.exit(main())
