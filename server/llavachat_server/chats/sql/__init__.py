"""Chats in a database: SQLite in one file, or PostgreSQL. One code path for both.

It knows what is kept (`chats.record`) and SQL; it must not know engines, streams or gRPC.
"""
