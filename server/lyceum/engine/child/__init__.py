"""The process in which a model runs. Only this room and `native` import llama.cpp; the server starts it and never
imports it: a wrong call aborts the interpreter, and a busy one slows every step down.
"""
