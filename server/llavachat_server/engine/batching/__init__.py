"""The batching core: many answers through one model, step by step.

`sequence` is one request, `blocks` the paged cache's bookkeeping, `scheduler` decides who
computes what in a step, `core` is the loop's body, `exact` the scheduler for answers that must come
out again, `sizing` says how large a cache is. Synchronous, owned by one thread; who computes is
behind `core.Runner`. It knows no torch, and nothing of chats, asyncio or gRPC.
"""
