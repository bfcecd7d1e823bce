"""Pictures good and evil, made when they are asked for, each with the answer it is to get.

In `damaged/` are files that mutation found, at which Pillow's decoders raise what is no OSError.
"""
