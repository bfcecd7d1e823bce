"""Ours and others' servers side by side: one checkpoint, one workload, one run; `make bench`.

What a contender is, and how each is started: `peers`. What is asked: `workload`. What is measured:
`rows`. What comes out: `report` and `charts`, from the run's JSON alone.
"""
