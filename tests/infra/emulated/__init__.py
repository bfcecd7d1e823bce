"""An AWS account on this machine, whole enough for the real CDK command line.

moto answers the calls. What it lacks to be deployed to stands here: a CloudFormation that waits,
replaces and rolls back (`stacks`), the resource types that it does not know (`resources`), and
single mends (`mends`), each of which `test_emulated.py` shows to be needed still.
"""
