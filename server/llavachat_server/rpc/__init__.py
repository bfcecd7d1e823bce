"""The contract on the wire: messages to values and back, errors to statuses.

It knows gRPC and the generated stubs; it must not know torch.
"""
