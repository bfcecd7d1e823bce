"""The engine: token ids and pictures in, token ids and text out, many chats at once.

It knows the model and the tokenizer; it must not know gRPC, chats, tenants or settings.
"""
