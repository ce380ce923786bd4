"""Workers whose interpreter starts no child as it should: `python -m tests.support.childless_worker run`.

Owns: an interpreter that ends as the loader does where a library is only found by an environment that is missing.
Must not know: what starts a child.
Invariant: the worker itself is the real one.
"""

import sys
import tempfile
from pathlib import Path

from worker.cli.main import main

_SCRIPT = """#!/bin/sh
echo "OSError: libgomp.so.1: cannot open shared object file" >&2
exit 1
"""

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        broken = Path(folder) / "python"
        broken.write_text(_SCRIPT, encoding="ascii")
        broken.chmod(0o755)
        sys.executable = str(broken)
        main()
