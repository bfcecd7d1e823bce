"""LLaVA by torch's operations: on a GPU, quantised, or where the kernels do not fit.

`loading` reads a model, `quantised` keeps what bitsandbytes made of it, `embedding` and `vision`
turn ids and pictures into rows, `runner` is the decoder's forward pass over `layers` and `linears`,
`attention` and `paged` are its caches, `graphs` records steps on a GPU, `sampling` draws, and
`backend` is what the engine sees. It knows no asyncio and no requests.
"""
