"""What installs and keeps a host. Python 3.9 and its standard library only: it runs first.

Rooms, imports running down: command, then installation, then database, release, model, units,
idleness and alert, then machine and options, then steps and layout.
"""
