"""Lazy invoices: a challenge costs the node's database nothing until somebody pays it.

`mint` writes the challenge's BOLT 11 by hand and has the node sign it; `hook`, in the process of its own
that `plugin` is, makes the invoice when its first HTLC arrives and lets the node go on. Both know it by
its payment secret, which is a `Quote`.

Laws of the hook, which sees every HTLC of the node:

1. It only ever says continue, at most with another payment secret in the payload.
2. A forward, and whatever is not ours, is answered at once, in the thread that read it.
3. What is ours is answered within a deadline, whatever happens; a stuck interpreter ends itself.
4. A row is written only for a hash, secret, time and amount that the challenge promised.
"""

METHOD = "l402-lazy"
"""What the hook's process answers, so that the till knows that it is there."""

KEY = "lyceum lazy invoice key 0"
"""What makesecret derives the key of preimages from."""


def shelf(subject: bytes) -> list[str]:
    """The key in the node's datastore under which the description of a subject is kept."""
    return ["lyceum", "subject", subject.hex()]
