"""A deployment's life by the real CDK command line, its machines saying no more than their signal.

The tests of the class are one story, in order: each goes on where the one before it left off.
"""

from conftest import Run, Synthesise, answer
from emulated.account import IMAGE, Account

STACK = "llavachat"


def find_machine(account: Account) -> str:
    """The id of the only machine."""
    (machine,) = account.list_running()
    return str(machine["InstanceId"])


def find_volume(account: Account) -> str:
    """The id of the chats' volume."""
    (volume,) = (
        volume
        for volume in account.client("ec2").describe_volumes()["Volumes"]
        if {"Key": "llavachat:chats", "Value": STACK} in volume.get("Tags", [])
    )
    return str(volume["VolumeId"])


class TestLife:
    """From nothing to nothing."""

    def test_deploy_ends_when_the_machine_has_signalled(
        self, account: Account, deploy: Run
    ) -> None:
        """And prints what to type next."""
        account.on_launch = answer("SUCCESS")
        done = deploy()
        assert 0 == done.returncode, done.stdout
        assert f"--target {find_machine(account)} --document-name AWS-StartPort" in done.stdout

    def test_the_machine_is_as_the_template_says(self, account: Account) -> None:
        """Seen through EC2's own interface."""
        (machine,) = account.list_running()
        assert ("g5.xlarge", IMAGE, "us-east-1a") == (
            machine["InstanceType"],
            machine["ImageId"],
            machine["Placement"]["AvailabilityZone"],
        )
        assert "required" == machine["MetadataOptions"]["HttpTokens"]
        groups = [group["GroupId"] for group in machine["SecurityGroups"]]
        (group,) = account.client("ec2").describe_security_groups(GroupIds=groups)["SecurityGroups"]
        assert [] == group["IpPermissions"]
        assert [443] == [rule["FromPort"] for rule in group["IpPermissionsEgress"]]

    def test_key_alarms_and_logs_stand(self, account: Account) -> None:
        """Key of 43 letters and digits, seven alarms, a month of logs."""
        deployment = account.read_deployment(find_machine(account))
        key = account.client("secretsmanager").get_secret_value(SecretId=deployment["api_key"])
        assert (43, True) == (len(key["SecretString"]), key["SecretString"].isalnum())
        alarms = account.client("cloudwatch").describe_alarms()["MetricAlarms"]
        assert 7 == len(alarms)
        (group,) = account.client("logs").describe_log_groups(
            logGroupNamePrefix=deployment["service_log"]
        )["logGroups"]
        assert 30 == group["retentionInDays"]

    def test_the_release_lies_where_the_machine_looks(self, account: Account) -> None:
        """The address in its user data leads to a zip."""
        deployment = account.read_deployment(find_machine(account))
        bucket, key = deployment["release"].removeprefix("s3://").split("/")
        body = account.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
        assert b"PK" == body[:2]

    def test_an_unchanged_deployment_changes_nothing(self, account: Account, deploy: Run) -> None:
        """The same machine goes on."""
        before = find_machine(account)
        done = deploy()
        assert 0 == done.returncode, done.stdout
        assert "no changes" in done.stdout
        assert before == find_machine(account)

    def test_an_update_replaces_the_machine_and_keeps_the_chats(
        self, account: Account, deploy: Run
    ) -> None:
        """A new machine, the same volume; alarm and name follow."""
        before, volume = find_machine(account), find_volume(account)
        done = deploy(idle_minutes=9)
        assert 0 == done.returncode, done.stdout
        after = find_machine(account)
        assert before != after
        assert volume == find_volume(account)
        watched = [
            alarm["Dimensions"][0]["Value"]
            for alarm in account.client("cloudwatch").describe_alarms()["MetricAlarms"]
            if "Unreachable" in alarm["AlarmName"]
        ]
        assert [after] == watched

    def test_a_machine_that_fails_fails_the_update_and_the_old_one_stays(
        self, account: Account, deploy: Run
    ) -> None:
        """At once, not at the end of half an hour; the reason is on the screen."""
        before, volume = find_machine(account), find_volume(account)
        account.on_launch = answer("FAILURE")
        done = deploy(idle_minutes=10)
        assert 1 == done.returncode
        assert "Received FAILURE signal" in done.stdout
        assert "UPDATE_ROLLBACK_COMPLETE" == account.stacks.get_stack(STACK).status
        assert (before, volume) == (find_machine(account), find_volume(account))

    def test_destroy_leaves_a_snapshot_of_the_chats_and_nothing_else(
        self, account: Account, cdk: Run, synthesise: Synthesise
    ) -> None:
        """Weights are emptied first; CDK's own bucket is not ours."""
        volume = find_volume(account)
        account.client("s3").put_object(
            Bucket=account.read_deployment(find_machine(account))["weights"].removeprefix("s3://"),
            Key="model",
            Body=b"weights",
        )
        done = cdk("destroy", "--force", "--app", str(synthesise(idle_minutes=9)))
        assert 0 == done.returncode, done.stdout
        assert {"snapshots": [volume]} == account.list_left()


class TestTrouble:
    """What a first deployment may meet."""

    def test_a_full_zone_fails_fast_and_another_one_serves(
        self, account: Account, deploy: Run, cdk: Run, synthesise: Synthesise
    ) -> None:
        """The reason is EC2's own; the failed stack does not stand in the way."""
        account.on_launch = answer("SUCCESS")
        account.full_zones = {"us-east-1a"}
        done = deploy(chats_on_delete="delete")
        assert 1 == done.returncode
        assert "sufficient g5.xlarge capacity" in done.stdout
        done = deploy(chats_on_delete="delete", zone="us-east-1b")
        assert 0 == done.returncode, done.stdout
        (machine,) = account.list_running()
        assert "us-east-1b" == machine["Placement"]["AvailabilityZone"]
        app = str(synthesise(chats_on_delete="delete", zone="us-east-1b"))
        assert 0 == cdk("destroy", "--force", "--app", app).returncode
        assert [] == account.list_running()
