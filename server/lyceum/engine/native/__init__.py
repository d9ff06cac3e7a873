"""llama.cpp behind values: the only code that calls it, since a wrong call aborts the process.

Laws: one thread loads, decodes, samples and closes (`Vocab.tokenize`, `framed` and `check_grammar` alone are open
to all); a batch holds no more rows and no other sequences than were made for it; no sampling but after a decode;
freed in order, once. Knows tokens, not requests.
"""

from lyceum.engine.native.batch import Stretch
from lyceum.engine.native.context import Context, Room
from lyceum.engine.native.quantise import TYPES, quantise
from lyceum.engine.native.sampler import Sampler, Sampling
from lyceum.engine.native.vectors import MOST_SEQUENCES, Vectors
from lyceum.engine.native.vocab import Special, Vocab
from lyceum.engine.native.weights import Weights, has_gpu, lend

__all__ = [
    "MOST_SEQUENCES",
    "TYPES",
    "Context",
    "Room",
    "Sampler",
    "Sampling",
    "Special",
    "Stretch",
    "Vectors",
    "Vocab",
    "Weights",
    "has_gpu",
    "lend",
    "quantise",
]
