"""What makes others' wheels fit together where their indexes do not; see each module."""
