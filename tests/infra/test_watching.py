"""What watches a deployment: alarms, the dashboard, logs and the budget."""

from typing import Any

import aws_cdk
import pytest
from aws_cdk.assertions import Template as Assertions
from conftest import Synthesise, Template, find, find_one, flatten, read_deployment, read_user_data
from emulated.stacks import order
from llavachat_cdk.configuration import RETENTION_DAYS
from llavachat_cdk.observability import RETENTIONS

ALARMS = {
    "Unhealthy": ("procstat_lookup_pid_count", "LessThanThreshold", 1),
    "Restarts": ("llavachat/WatchdogRestarts", "GreaterThanOrEqualToThreshold", 1),
    "Failures": ("llavachat/Failures", "GreaterThanOrEqualToThreshold", 1),
    "GpuMemory": ("nvidia_smi_memory_used", "GreaterThanOrEqualToThreshold", 98),
    "Disk": ("disk_used_percent", "GreaterThanOrEqualToThreshold", 85),
    "Latency": ("llavachat/FirstTokenSeconds", "GreaterThanOrEqualToThreshold", 5),
    "Unreachable": ("StatusCheckFailed_Instance", "GreaterThanOrEqualToThreshold", 1),
}
"""Metric, comparison and threshold by the alarm's name."""


def list_metrics(alarm: dict[str, Any]) -> list[str]:
    """Names of the metrics that an alarm watches, by itself or in an expression."""
    watched = [
        each["MetricStat"]["Metric"]
        for each in alarm.get("Metrics", [])
        if "Id" in each and "MetricStat" in each
    ]
    return [each["MetricName"] for each in watched or [alarm]]


@pytest.mark.parametrize("name", ALARMS)
def test_each_alarm_watches_its_own_metric(template: Template, name: str) -> None:
    """Unhealthy, hung, failed, GPU memory, disk, slow, unreachable."""
    alarm = find_one(template, "AWS::CloudWatch::Alarm", f"Observability{name}")["Properties"]
    metric, comparison, threshold = ALARMS[name]
    assert metric in list_metrics(alarm)
    assert (comparison, threshold) == (alarm["ComparisonOperator"], alarm["Threshold"])


def test_lines_that_are_counted_are_those_that_are_written(template: Template) -> None:
    """systemd's words for a hung and a failed service or weights, and the server's own field."""
    patterns = {
        each["Properties"]["FilterPattern"]
        for each in find(template, "AWS::Logs::MetricFilter").values()
    }
    expected = {
        '"llavachat.service: Watchdog timeout"',
        '?"llavachat.service: Failed with result" ?"llavachat-model.service: Failed with result"',
        "{ $.first_token_seconds >= 0 }",
    }
    assert expected == patterns


def test_the_dashboard_shows_alarms_gpu_and_log(synthesise: Synthesise, template: Template) -> None:
    """On one page; none if it is not wanted."""
    body = str(flatten(find_one(template, "AWS::CloudWatch::Dashboard")["Properties"]))
    for word in ("Alarms", "First token", "nvidia_smi_utilization_gpu", "Newest log lines"):
        assert word in body
    assert {} == find(synthesise(dashboard=False), "AWS::CloudWatch::Dashboard")


def test_every_alarm_reaches_the_topic_and_none_rings_for_a_stopped_machine(
    template: Template,
) -> None:
    """Idle stop is no incident."""
    alarms = find(template, "AWS::CloudWatch::Alarm")
    topic = f"<{next(iter(find(template, 'AWS::SNS::Topic')))}>"
    assert len(ALARMS) == len(alarms)
    for alarm in alarms.values():
        assert "notBreaching" == alarm["Properties"]["TreatMissingData"]
        assert topic in flatten(alarm["Properties"]["AlarmActions"])


def test_alarms_may_publish_to_the_topic(template: Template) -> None:
    """A policy of our own takes the place of the default that lets them."""
    policy = find_one(template, "AWS::SNS::TopicPolicy")["Properties"]["PolicyDocument"]
    allowed = {
        str(statement["Principal"]["Service"])
        for statement in policy["Statement"]
        if statement["Effect"] == "Allow"
    }
    assert {"cloudwatch.amazonaws.com", "budgets.amazonaws.com"} == allowed


def test_an_unreachable_machine_is_rebooted(template: Template) -> None:
    """`recover` is refused for machines with instance store."""
    alarm = find_one(template, "AWS::CloudWatch::Alarm", "Unreachable")["Properties"]
    expected = "arn:<AWS::Partition>:automate:<AWS::Region>:ec2:reboot"
    assert expected in flatten(alarm["AlarmActions"])


def test_the_mail_address_hears_of_alarms(synthesise: Synthesise, template: Template) -> None:
    """By subscription; without an address there is none."""
    subscription = find_one(synthesise(alarm_email="me@example.org"), "AWS::SNS::Subscription")
    assert ("email", "me@example.org") == (
        subscription["Properties"]["Protocol"],
        subscription["Properties"]["Endpoint"],
    )
    assert {} == find(template, "AWS::SNS::Subscription")


def test_logs_are_kept_as_long_as_asked() -> None:
    """CDK's names for the days pair with the days."""
    stack = aws_cdk.Stack()
    for days, name in RETENTIONS.items():
        aws_cdk.aws_logs.LogGroup(stack, f"Days{days}", retention=name)
    groups = Assertions.from_stack(stack).find_resources("AWS::Logs::LogGroup")
    kept = {name: each["Properties"]["RetentionInDays"] for name, each in groups.items()}
    assert set(RETENTION_DAYS) == set(RETENTIONS)
    assert len(RETENTIONS) == len(kept)
    assert all(name.startswith(f"Days{days}") for name, days in kept.items())


def test_the_chosen_days_reach_both_logs(synthesise: Synthesise) -> None:
    """The service's by the template, the first boot's by the machine that makes it."""
    template = synthesise(retention_days=7)
    group = find_one(template, "AWS::Logs::LogGroup", "ObservabilityLog")["Properties"]
    assert 7 == group["RetentionInDays"]
    assert 7 == read_deployment(read_user_data(template))["retention_days"]


def test_the_install_log_outlives_a_rollback(template: Template) -> None:
    """CloudFormation does not know it, so that it cannot delete it."""
    groups = [
        group["Properties"].get("LogGroupName")
        for group in find(template, "AWS::Logs::LogGroup").values()
    ]
    assert "/llavachat/llavachat/install" not in groups
    assert '"install_log": "/llavachat/llavachat/install"' in read_user_data(template)


@pytest.mark.parametrize("spot", [False, True])
def test_the_services_log_is_there_before_the_machine_and_goes_after_it(
    synthesise: Synthesise, spot: bool
) -> None:
    """An agent that finds none makes one, and the next deployment of the name is refused."""
    template = synthesise(spot=True) if spot else synthesise()
    kind = "AWS::AutoScaling::AutoScalingGroup" if spot else "AWS::EC2::Instance"
    (group,) = (name for name in find(template, "AWS::Logs::LogGroup") if "Observability" in name)
    assert group in find_one(template, kind)["DependsOn"]
    # What CloudFormation makes and removes in order must not wait for the machine in turn.
    made = order(template["Resources"])
    (machine,) = find(template, kind)
    assert made.index(group) < made.index(machine)


def test_budget(synthesise: Synthesise, template: Template) -> None:
    """Warns at 80 % spent and when 100 % is forecast; 0 makes none."""
    budget = find_one(template, "AWS::Budgets::Budget")["Properties"]
    assert {"Amount": 100, "Unit": "USD"} == budget["Budget"]["BudgetLimit"]
    assert [("ACTUAL", 80), ("FORECASTED", 100)] == [
        (warning["Notification"]["NotificationType"], warning["Notification"]["Threshold"])
        for warning in budget["NotificationsWithSubscribers"]
    ]
    assert {} == find(synthesise(budget_usd=0), "AWS::Budgets::Budget")
