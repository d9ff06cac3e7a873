"""Parts of contrib/bench/engine.py: a load, the servers that it is put on, and what they serve."""
