"""Where Qlib is installed, it is also asked live.

`live/` holds the recordings against Qlib itself, explores with random trees and bars, and tests Qlib on our provider.
Without Qlib there is nothing in it to test, so it is not collected: no test is skipped, and what the engine must equal
is compared with the recordings everywhere. `test_oracle.py` fails where Qlib is missing and could be installed.
"""

from importlib.util import find_spec

collect_ignore = [] if find_spec("qlib") else ["live"]
