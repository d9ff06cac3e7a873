"""Lyceum: sell, buy and consult specialised language models over the Lightning Network.

The design page, with every room and what it must not know, is `server/README.md`.
"""
