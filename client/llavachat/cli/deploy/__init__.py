"""``llavachat up | status | logs | tunnel | stop | start | down | doctor``: a deployment in AWS.

`commands` declares them; each is done in the module of its name. Needs the extra `deploy`.
"""
