"""Measured without a server, each in a process of its own: what the machine and the engine can do.

Beside the contenders in every round, so that shares and distances compare like with like.
"""
