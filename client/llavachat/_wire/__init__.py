"""Between the client's values and the contract's messages; with `_channel`, the only modules
that touch generated code or gRPC."""
