"""What an operator needs: health, logs, and word to systemd.

It must not know chats or pictures.
"""
