"""Any OpenAI-compatible server (vLLM, Ray Serve, llama-server, Ollama, `lyceum serve`) as a Model or an Embedder.

Laws: everything that comes back is bounded and checked; a request is sent again only while nothing of its answer
was passed on; what was delivered is counted here; a key goes to its own server and nowhere else. Knows no money.

`line` bounds who is served and who waits, `server` is one URL, `pool` chooses among those of one model, `model`
and `embedder` are what is sold.
"""

from lyceum.upstream.embedder import UpstreamEmbedder
from lyceum.upstream.model import UpstreamModel
from lyceum.upstream.pool import Pool
from lyceum.upstream.settings import Patience, UpstreamSettings

__all__ = ["Patience", "Pool", "UpstreamEmbedder", "UpstreamModel", "UpstreamSettings"]
