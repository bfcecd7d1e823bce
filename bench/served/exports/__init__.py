"""Brings the checkpoint into the forms of others, in their own environments."""
