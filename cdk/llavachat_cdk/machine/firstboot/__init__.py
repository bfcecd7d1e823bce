"""A machine's first boot: everything between the user data's stub and the install script.

Runs on the system's own Python (3.9 or newer) with the AWS command line and nothing else. Brings
key and certificate and has the install script prepare all that may take long or fail; only then
claims the chats' volume from the machine that serves, installs, waits for health, and signals
CloudFormation. What it does is written, with its time, to a log group that outlives a
deployment that fails.

`wake` alone belongs to the boots that follow: it sees to the volume that an update left behind.
"""
