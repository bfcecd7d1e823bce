"""The one way in for pictures: check the header, decode, normalise, pad, scale.

It knows Pillow and numpy; it must not know torch, gRPC or chats.
"""
