from __future__ import annotations

import sys
from pathlib import Path

# The tests' own helpers are modules beside them; pytest's importlib mode puts no folder on the path.
sys.path.insert(0, str(Path(__file__).parent))
