"""A machine's first boot: everything between the user data's stub and the install script.

Runs on the system's own Python (3.9 or newer) with the AWS command line and nothing else. Claims
the chats' volume, brings key and certificate, runs the install script, waits for health, and
signals CloudFormation. What it does is written, with its time, to a log group that outlives a
deployment that fails.

`wake` alone belongs to the boots that follow: it sees to the volume that an update left behind.
"""
