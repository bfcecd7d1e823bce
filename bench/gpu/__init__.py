"""The engine at full size on a GPU, beside `generate()` and what the GPU's memory allows.

Weights are random, in LLaVA-1.5's shapes: speed does not care, and nothing need be fetched. What is
asked, and what is measured of it, is the comparison's on a CPU: `bench.served.rows`.
"""
