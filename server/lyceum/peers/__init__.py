"""Specialists on other nodes as Models, over HTTP(S): visit a seller, ask it, pay when it says 402.

Everything a peer sends is bounded and checked; whatever it does ends in an `End`.
"""

from lyceum.peers.auth import L402Auth, origin_of
from lyceum.peers.model import PeerModel
from lyceum.peers.sellers import Seller, muster, visit

__all__ = ["L402Auth", "PeerModel", "Seller", "muster", "origin_of", "visit"]
