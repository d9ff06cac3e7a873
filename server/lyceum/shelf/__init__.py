"""`lyceum models`: the GGUF files of this machine and the configuration that sells them.

`arguments` is what can be typed and is light; `commands` does it. Below them: `catalogue` and `source` (what to
fetch and from where), `fetch` (getting it, whole and right), `proposal` (a file becomes a table), `configfile`
(the table becomes text), `listing`, `probe` (does it run here), `progress` and `amounts` (what a person sees).
"""
