"""Chats: the tree of turns, who holds it, and how one turn runs.

It knows pictures, token ids and the engine's protocol; it must not know gRPC or torch.
"""
