"""A folder of texts as a specialist's memory: read, indexed, searched, put before a model, and cited.

`texts` cuts files into passages, `index` keeps and finds them (SQLite FTS5), `reader` is a Model that looks
things up before another Model answers, `prompted` one with a standing instruction.
"""

from lyceum.library.index import Found, Index, Progress, Refreshed
from lyceum.library.prompted import Prompted
from lyceum.library.reader import Reader

__all__ = ["Found", "Index", "Progress", "Prompted", "Reader", "Refreshed"]
