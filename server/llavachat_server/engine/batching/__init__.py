"""The batching core: many answers through one model, step by step.

`sequence` is one request, `blocks` the paged cache's bookkeeping, `scheduler` decides who
computes what in a step, `attention` and `linears` are the kernels, `runner` the forward pass,
`core` the loop's body. Synchronous, owned by one thread; it knows torch and Llama's modules,
and nothing of chats, asyncio or gRPC.
"""
