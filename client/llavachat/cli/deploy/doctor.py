"""``llavachat doctor``: all that a deployment needs, looked at before anything is spent."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from llavachat.cli.deploy import toolkit
from llavachat.cli.deploy.account import NAME_REGION, Account
from llavachat.cli.failure import ExitCode, Failure
from llavachat.cli.output import write

QUOTAS = {
    (True, False): "L-DB2E81BA",
    (True, True): "L-3819A6DF",
    (False, False): "L-1216C47A",
    (False, True): "L-34B43A08",
}
"""By GPU and spot: the quotas for G and VT, and for standard instances, on demand and as spare
capacity, in vCPUs. Source: the Service Quotas console, EC2."""

MIN_NODE = 20


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Args:
        remedy: what to do; "" where it is well.
        needed: False: a deployment works without it.
    """

    name: str
    seen: str
    remedy: str = ""
    needed: bool = True


def doctor(account: Account, instance_type: str, *, spot: bool) -> ExitCode:
    """Look at everything, and tell each on a line; 1 where something must be mended."""
    failed = False
    for finding in examine(account, instance_type, spot=spot):
        failed |= bool(finding.remedy) and finding.needed
        write(describe(finding) + "\n")
    return ExitCode.FAILED if failed else ExitCode.OK


def describe(finding: Finding) -> str:
    """A finding as a line: ok, what is wrong and what to do."""
    mark = "ok  " if not finding.remedy else "FAIL" if finding.needed else "warn"
    line = f"{mark}  {finding.name}: {finding.seen}"
    return f"{line}; {finding.remedy}" if finding.remedy else line


def examine(account: Account, instance_type: str, *, spot: bool) -> Iterator[Finding]:
    """Each finding when it is known, the cheapest first. Asks only, changes nothing."""
    yield look_at_node()
    yield look_at_cdk()
    yield look_at_app()
    yield look_at_plugin()
    yield Finding("region", account.region or "none", "" if account.region else NAME_REGION)
    identity = look_at_credentials(account)
    yield identity
    if identity.remedy or not account.region:
        return
    yield look_at_quota(account, instance_type, spot=spot)
    yield look_at_bootstrap(account)


def look_at_node() -> Finding:
    """The CDK command line runs on Node.js."""
    remedy = f"install Node.js {MIN_NODE} or newer, from nodejs.org or your distribution"
    version = read_version("node", "--version")
    if version is None:
        return Finding("Node.js", "not found", remedy)
    major = re.match(r"v?(\d+)", version)
    old = not major or int(major[1]) < MIN_NODE
    return Finding("Node.js", version, remedy if old else "")


def look_at_cdk() -> Finding:
    """The command line, of a release that reads our app."""
    try:
        command = toolkit.find_cdk()
    except Failure as failure:
        return Finding("CDK", "not usable", str(failure))
    if len(command) > 1:
        return Finding("CDK", f"not installed; taken when needed: {' '.join(command)}")
    return Finding("CDK", read_version(*command, "--version") or "?")


def look_at_app() -> Finding:
    """The CDK app, which comes with the source and not with the wheel."""
    try:
        app = toolkit.find_app()
        return Finding("CDK app", f"{app.folder}, aws-cdk-lib {toolkit.read_library(app)}")
    except Failure as failure:
        return Finding("CDK app", "not usable", str(failure))


def look_at_plugin() -> Finding:
    """Without it a deployment stands, but can not be reached from here."""
    version = read_version("session-manager-plugin", "--version")
    if version is None:
        return Finding("Session Manager plugin", "not found", toolkit.PLUGIN_REMEDY)
    return Finding("Session Manager plugin", version)


def look_at_credentials(account: Account) -> Finding:
    """Who we are to AWS; without a region, which it takes to ask, whether there are any."""
    none = Finding("credentials", "none", "run `aws configure`, or set AWS_PROFILE")
    if not account.region:
        found = account.session.get_credentials()
        return Finding("credentials", "found, not tried without a region") if found else none
    try:
        answer = account.client("sts").get_caller_identity()
    except NoCredentialsError:
        return none
    except (ClientError, BotoCoreError) as error:
        return Finding("credentials", str(error), "sign in again, or set AWS_PROFILE")
    return Finding("credentials", str(answer["Arn"]))


def look_at_quota(
    account: Account, instance_type: str, *, spot: bool, machines: int = 1
) -> Finding:
    """Machines need vCPUs of a quota; of that for GPUs, new accounts have none."""
    code = QUOTAS[instance_type.startswith("g"), spot]
    name = f"quota {code}"
    try:
        answer = account.client("ec2").describe_instance_types(InstanceTypes=[instance_type])
        need = machines * int(answer["InstanceTypes"][0]["VCpuInfo"]["DefaultVCpus"])
    except ClientError as error:
        if error.response["Error"].get("Code") == "InvalidInstanceType":
            seen = f"{instance_type} is none in {account.region}"
            return Finding("machine type", seen, "see the types in docs/deploy.md")
        return Finding(name, f"not readable ({error})", "see the rights", needed=False)
    remedy = (
        "ask for an increase: aws service-quotas request-service-quota-increase --service-code ec2 "
        f"--quota-code {code} --desired-value {max(need, 8)} --region {account.region}; it takes "
        "hours to days"
    )
    try:
        answer = account.client("service-quotas").get_service_quota(
            ServiceCode="ec2", QuotaCode=code
        )
    except (ClientError, BotoCoreError) as error:
        return Finding(name, f"not readable ({error})", "look in the console", needed=False)
    have = int(answer["Quota"]["Value"])
    what = instance_type if machines == 1 else f"{machines} {instance_type}"
    seen = f"{have} vCPUs, {what} needs {need}"
    return Finding(name, seen, remedy if have < need else "")


def look_at_bootstrap(account: Account) -> Finding:
    """CDK's own bucket and roles."""
    try:
        version = find_bootstrap(account)
    except (ClientError, BotoCoreError) as error:
        return Finding("bootstrap", f"not readable ({error})", "see the rights", needed=False)
    if version is None:
        return Finding("bootstrap", "not done", "`llavachat up` does it", needed=False)
    return Finding("bootstrap", f"version {version}")


def find_bootstrap(account: Account) -> str | None:
    """The version of CDK's bootstrap stack in this region. None: it is not there."""
    try:
        name = "/cdk-bootstrap/hnb659fds/version"
        answer = account.client("ssm").get_parameter(Name=name)
    except ClientError as error:
        if error.response["Error"].get("Code") == "ParameterNotFound":
            return None
        raise
    return str(answer["Parameter"]["Value"])


def read_version(*command: str) -> str | None:
    """What a program says of its version. None: there is no such program."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return None
    told = (done.stdout.strip() or done.stderr.strip()).splitlines()
    return told[0] if told else "?"
