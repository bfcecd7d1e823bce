"""LLaVA-1.5 itself: its configuration, its modules and its weights, without transformers.

Importing transformers' classes takes three seconds and 150 MB, for an architecture of a few
hundred lines. The names of modules and fields are transformers', so that the rest of the engine
takes either model. It knows checkpoints' files and torch; no cache, no requests, no quantisation.
"""
