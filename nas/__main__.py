"""`python -m nas`: the command line. Python puts the working directory first for it, whose files must not replace modules."""

import os
import sys

if not sys.flags.safe_path and sys.path[0] not in os.environ.get("PYTHONPATH", "").split(os.pathsep):
    del sys.path[0]

from nas.cli.app import main

if __name__ == "__main__":
    main()
