"""What keeps the bill small and no secret: daily snapshots that expire, and a budget that warns.

Idle stop itself is the machine's own doing, see the host; it costs nothing.
"""

from aws_cdk import Aws
from aws_cdk import aws_budgets as budgets
from aws_cdk import aws_dlm as dlm
from aws_cdk import aws_iam as iam
from aws_cdk import aws_sns as sns
from constructs import Construct

from llavachat_cdk.configuration import Options
from llavachat_cdk.waivers import waive_wildcards

VOLUME_TAG = "llavachat:chats"
"""Marks the chats' volumes and their snapshots; the value is the deployment's name."""


class Snapshots(Construct):
    """One snapshot of the chats a day, the newest `options.snapshots_kept` of them kept."""

    def __init__(self, scope: Construct, id: str, *, name: str, options: Options) -> None:
        super().__init__(scope, id)
        partition, region, account = Aws.PARTITION, Aws.REGION, Aws.ACCOUNT_ID
        snapshots = f"arn:{partition}:ec2:{region}::snapshot/*"
        volumes = f"arn:{partition}:ec2:{region}:{account}:volume/*"
        role = iam.Role(
            self,
            "Role",
            assumed_by=iam.ServicePrincipal("dlm.amazonaws.com"),
            inline_policies={
                "Snapshots": iam.PolicyDocument(
                    statements=[
                        iam.PolicyStatement(
                            sid="Take",
                            actions=["ec2:CreateSnapshot", "ec2:CreateSnapshots"],
                            resources=[volumes],
                            conditions={"StringEquals": {f"ec2:ResourceTag/{VOLUME_TAG}": name}},
                        ),
                        iam.PolicyStatement(
                            sid="Store",
                            actions=["ec2:CreateSnapshot", "ec2:CreateSnapshots"],
                            resources=[snapshots],
                        ),
                        # As in AWS's own policy for this. That DLM marks a snapshot in the call
                        # that makes it, and never after, is promised nowhere; one that bears no
                        # mark would never expire.
                        iam.PolicyStatement(
                            sid="Mark", actions=["ec2:CreateTags"], resources=[snapshots]
                        ),
                        iam.PolicyStatement(
                            sid="Expire",
                            actions=["ec2:DeleteSnapshot"],
                            resources=[snapshots],
                            conditions={"StringEquals": {f"ec2:ResourceTag/{VOLUME_TAG}": name}},
                        ),
                        iam.PolicyStatement(
                            sid="Look",
                            actions=[
                                "ec2:DescribeInstances",
                                "ec2:DescribeVolumes",
                                "ec2:DescribeSnapshots",
                            ],
                            resources=["*"],
                        ),
                    ]
                )
            },
        )
        waive_wildcards(
            role,
            {
                "*": "Describe calls know no resources.",
                snapshots: "Snapshots' ids are not known beforehand; expiry is held by a tag.",
                volumes: "Held by a tag to the chats' volumes of this deployment.",
            },
        )
        schedule = dlm.CfnLifecyclePolicy.ScheduleProperty(
            name="Daily",
            copy_tags=True,
            create_rule=dlm.CfnLifecyclePolicy.CreateRuleProperty(
                interval=24, interval_unit="HOURS", times=["03:00"]
            ),
            retain_rule=dlm.CfnLifecyclePolicy.RetainRuleProperty(count=options.snapshots_kept),
        )
        dlm.CfnLifecyclePolicy(
            self,
            "Daily",
            description="Daily snapshots of the chats of llavachat",
            state="ENABLED",
            execution_role_arn=role.role_arn,
            policy_details=dlm.CfnLifecyclePolicy.PolicyDetailsProperty(
                resource_types=["VOLUME"],
                target_tags=[{"key": VOLUME_TAG, "value": name}],
                schedules=[schedule],
            ),
        )


class Budget(Construct):
    """A monthly budget: warns at 80 % spent and when 100 % is forecast."""

    def __init__(self, scope: Construct, id: str, *, options: Options, topic: sns.ITopic) -> None:
        super().__init__(scope, id)
        topic.add_to_resource_policy(
            iam.PolicyStatement(
                sid="BudgetMayWarn",
                principals=[iam.ServicePrincipal("budgets.amazonaws.com")],
                actions=["sns:Publish"],
                resources=[topic.topic_arn],
                conditions={"StringEquals": {"aws:SourceAccount": Aws.ACCOUNT_ID}},
            )
        )
        subscriber = budgets.CfnBudget.SubscriberProperty(
            subscription_type="SNS", address=topic.topic_arn
        )
        budgets.CfnBudget(
            self,
            "Monthly",
            budget=budgets.CfnBudget.BudgetDataProperty(
                budget_type="COST",
                time_unit="MONTHLY",
                budget_limit=budgets.CfnBudget.SpendProperty(amount=options.budget_usd, unit="USD"),
            ),
            notifications_with_subscribers=[
                budgets.CfnBudget.NotificationWithSubscribersProperty(
                    notification=budgets.CfnBudget.NotificationProperty(
                        comparison_operator="GREATER_THAN",
                        notification_type=kind,
                        threshold=threshold,
                        threshold_type="PERCENTAGE",
                    ),
                    subscribers=[subscriber],
                )
                for kind, threshold in (("ACTUAL", 80), ("FORECASTED", 100))
            ],
        )
