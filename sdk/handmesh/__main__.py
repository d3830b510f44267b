"""``python -m handmesh``: the command, for launchers that want a module, as torchrun does."""

import sys

from handmesh.cli import main

sys.exit(main())
