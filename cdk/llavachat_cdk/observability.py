"""How the deployment is seen: logs, alarms to a topic, a dashboard.

Metrics come from three places: EC2 itself, the agent on the machine (namespace `LlavaChat`,
dimension `Deployment`, so that they outlive any one machine), and lines of the service's log.
"""

from aws_cdk import Aws, CfnResource, Duration, RemovalPolicy
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from constructs import Construct

from llavachat_cdk.configuration import RETENTION_DAYS, Options
from llavachat_cdk.host import Host

NAMESPACE = "LlavaChat"

RETENTIONS = dict(zip(RETENTION_DAYS, list(logs.RetentionDays), strict=False))
"""CDK's names for the days; `tests/infra` checks the pairing through the template."""

LINES = {
    # systemd's own words in the journal.
    "WatchdogRestarts": '"llavachat.service: Watchdog timeout"',
    "Failures": '?"llavachat.service: Failed with result" '
    '?"llavachat-model.service: Failed with result"',
}
"""What is counted in the service's log, by pattern."""

FIRST_TOKEN_FIELD = "$.first_token_seconds"  # noqa: S105 - a name, no secret
"""Field of the one line that the service logs for each turn."""


class Observability(Construct):
    """Logs, alarms and a dashboard of one host.

    Attributes:
        topic: where alarms and the budget's warnings go.
        alarms: every alarm, by name.
        log_group: the service's log.
    """

    def __init__(self, scope: Construct, id: str, *, options: Options, host: Host) -> None:
        super().__init__(scope, id)
        self.name = host.name
        self.topic = self.build_topic(options)
        self.log_group = logs.LogGroup(
            self,
            "Log",
            log_group_name=host.service_log,
            retention=RETENTIONS[options.retention_days],
            removal_policy=RemovalPolicy.DESTROY,
        )
        # The machine's agent makes a group that it does not find, with no retention and in nobody's
        # charge; the next deployment of this name would be refused over it. So the group is there
        # before the machine, and goes after it.
        group = self.log_group.node.default_child
        assert isinstance(group, CfnResource)
        host.resource.add_resource_dependency(group)
        self.metrics = self.count_lines() | self.read_agent()
        self.alarms = self.build_alarms()
        if host.instance:
            self.alarms["Unreachable"] = self.build_reboot(host.instance.instance_id)
        for alarm in self.alarms.values():
            alarm.add_alarm_action(actions.SnsAction(self.topic))
        if options.dashboard:
            self.build_dashboard()

    def build_topic(self, options: Options) -> sns.Topic:
        """The topic that alarms publish to, over TLS only."""
        topic = sns.Topic(self, "Topic", display_name=self.name, enforce_ssl=True)
        # enforce_ssl writes a policy, which takes the place of the default under which alarms
        # may publish.
        topic.add_to_resource_policy(
            iam.PolicyStatement(
                sid="AlarmsMayPublish",
                principals=[iam.ServicePrincipal("cloudwatch.amazonaws.com")],
                actions=["sns:Publish"],
                resources=[topic.topic_arn],
                conditions={"StringEquals": {"aws:SourceAccount": Aws.ACCOUNT_ID}},
            )
        )
        if options.alarm_email:
            topic.add_subscription(subscriptions.EmailSubscription(options.alarm_email))
        return topic

    def count_lines(self) -> dict[str, cloudwatch.IMetric]:
        """Metrics that are read from the service's log."""
        found: dict[str, cloudwatch.IMetric] = {}
        for name, pattern in LINES.items():
            counter = self.log_group.add_metric_filter(
                name,
                filter_pattern=logs.FilterPattern.literal(pattern),
                metric_namespace=NAMESPACE,
                metric_name=f"{self.name}/{name}",
            )
            found[name] = counter.metric(statistic="Sum", period=Duration.minutes(5))
        latency = self.log_group.add_metric_filter(
            "FirstTokenSeconds",
            filter_pattern=logs.FilterPattern.number_value(FIRST_TOKEN_FIELD, ">=", 0),
            metric_namespace=NAMESPACE,
            metric_name=f"{self.name}/FirstTokenSeconds",
            metric_value=FIRST_TOKEN_FIELD,
            unit=cloudwatch.Unit.SECONDS,
        )
        found["FirstTokenSeconds"] = latency.metric(statistic="p95", period=Duration.minutes(5))
        return found

    def read_agent(self) -> dict[str, cloudwatch.IMetric]:
        """Metrics that the agent on the machine sends; see machine/agent.json."""

        def measure(metric: str, **dimensions: str) -> cloudwatch.Metric:
            return cloudwatch.Metric(
                namespace=NAMESPACE,
                metric_name=metric,
                dimensions_map={"Deployment": self.name} | dimensions,
                statistic="Maximum",
                period=Duration.minutes(1),
            )

        return {
            "Processes": measure("procstat_lookup_pid_count"),
            "GpuBusy": measure("nvidia_smi_utilization_gpu"),
            "GpuMemoryUsed": measure("nvidia_smi_memory_used"),
            "GpuMemoryTotal": measure("nvidia_smi_memory_total"),
            "MemoryUsed": measure("mem_used_percent"),
            "DiskUsed": measure("disk_used_percent"),
        }

    def build_alarms(self) -> dict[str, cloudwatch.Alarm]:
        """Every alarm but the one that reboots. A stopped machine raises none."""
        gpu_memory = cloudwatch.MathExpression(
            expression="100 * used / total",
            label="GPU memory used",
            period=Duration.minutes(1),
            using_metrics={
                "used": self.metrics["GpuMemoryUsed"],
                "total": self.metrics["GpuMemoryTotal"],
            },
        )
        table: list[tuple[str, str, cloudwatch.IMetric, float, int, bool]] = [
            (
                "Unhealthy",
                "No llavachat process for five minutes on a machine that runs.",
                self.metrics["Processes"],
                1,
                5,
                False,
            ),
            (
                "Restarts",
                "The watchdog found the service hung and restarted it.",
                self.metrics["WatchdogRestarts"],
                1,
                1,
                True,
            ),
            (
                "Failures",
                "The service ended by a failure, or its weights did not come.",
                self.metrics["Failures"],
                1,
                1,
                True,
            ),
            ("GpuMemory", "GPU memory is full to 98 %.", gpu_memory, 98, 5, True),
            (
                "Disk",
                "A disk is full to 85 %: at 100 % new turns are refused.",
                self.metrics["DiskUsed"],
                85,
                5,
                True,
            ),
            (
                "Latency",
                "One first token in twenty took 5 s or more, for 15 minutes.",
                self.metrics["FirstTokenSeconds"],
                5,
                3,
                True,
            ),
        ]
        above = cloudwatch.ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD
        below = cloudwatch.ComparisonOperator.LESS_THAN_THRESHOLD
        return {
            name: cloudwatch.Alarm(
                self,
                name,
                alarm_description=f"{self.name}: {text}",
                metric=metric,
                threshold=threshold,
                evaluation_periods=periods,
                comparison_operator=above if is_upper else below,
                treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
            )
            for name, text, metric, threshold, periods, is_upper in table
        }

    def build_reboot(self, instance_id: str) -> cloudwatch.Alarm:
        """Reboots a machine that EC2 finds unreachable.

        EC2's `recover` action is refused for machines with instance store, as these have.
        """
        alarm = cloudwatch.Alarm(
            self,
            "Unreachable",
            alarm_description=f"{self.name}: EC2 cannot reach the machine; it is rebooted.",
            metric=cloudwatch.Metric(
                namespace="AWS/EC2",
                metric_name="StatusCheckFailed_Instance",
                dimensions_map={"InstanceId": instance_id},
                statistic="Maximum",
                period=Duration.minutes(1),
            ),
            threshold=1,
            evaluation_periods=3,
            comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
            treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
        )
        alarm.add_alarm_action(actions.Ec2Action(actions.Ec2InstanceAction.REBOOT))
        return alarm

    def build_dashboard(self) -> None:
        """One page: is it well, is it fast, is it full."""

        def plot(title: str, *names: str) -> cloudwatch.GraphWidget:
            return cloudwatch.GraphWidget(
                title=title, left=[self.metrics[name] for name in names], width=8
            )

        cloudwatch.Dashboard(
            self,
            "Dashboard",
            dashboard_name=self.name,
            widgets=[
                [
                    cloudwatch.AlarmStatusWidget(
                        title="Alarms", alarms=list(self.alarms.values()), width=24, height=3
                    )
                ],
                [
                    plot("First token, seconds (p95)", "FirstTokenSeconds"),
                    plot("GPU busy, %", "GpuBusy"),
                    plot("GPU memory, MiB", "GpuMemoryUsed", "GpuMemoryTotal"),
                ],
                [
                    plot("Watchdog restarts and failures", "WatchdogRestarts", "Failures"),
                    plot("Fullest disk, %", "DiskUsed"),
                    plot("Memory, %", "MemoryUsed"),
                ],
                [
                    cloudwatch.LogQueryWidget(
                        title="Newest log lines",
                        log_group_names=[self.log_group.log_group_name],
                        query_lines=["fields @timestamp, @message", "sort @timestamp desc"],
                        width=24,
                    )
                ],
            ],
        )
