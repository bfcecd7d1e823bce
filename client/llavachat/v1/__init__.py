"""The contract in Python: messages in `chat_pb2`, stubs in `chat_pb2_grpc`.

Generated from ``protos/llavachat/v1/chat.proto`` by ``make protos``; do not edit by hand.
"""
