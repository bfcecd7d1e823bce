"""Servers for what comes without one. They run in their contender's own environment."""
