"""``python -m daskml_scale``: the same as the command ``daskml-scale``."""

import sys

from daskml_scale.cli import main

sys.exit(main())
