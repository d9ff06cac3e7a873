"""llama.cpp behind values: the only code that calls it, since a wrong call aborts the process.

Laws: one thread loads, decodes, samples and closes a context (`Vocab.tokenize` and `Vocab.check_grammar`
alone are open to all); no batch of more than BATCH tokens; no sampling but after a decode; freed in
order, once. Knows tokens, not requests.
"""

from lyceum.engine.native.context import BATCH, Context, log_probabilities
from lyceum.engine.native.quantise import TYPES, quantise
from lyceum.engine.native.sampler import Sampler, Sampling
from lyceum.engine.native.vectors import MOST_SEQUENCES, Vectors
from lyceum.engine.native.vocab import Special, Vocab
from lyceum.engine.native.weights import Weights, has_gpu, lend

__all__ = [
    "BATCH",
    "MOST_SEQUENCES",
    "TYPES",
    "Context",
    "Sampler",
    "Sampling",
    "Special",
    "Vectors",
    "Vocab",
    "Weights",
    "has_gpu",
    "lend",
    "log_probabilities",
    "quantise",
]
