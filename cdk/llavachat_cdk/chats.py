"""The chats' volume: in the zone, and from the snapshot, that the deployment began with.

Neither can be changed on a volume that stands: CloudFormation refuses it, and a new volume in the
old one's place would hold none of the chats. But a template knows nothing of what stands. A
parameter does: CDK's command line keeps the value that a stack has, whatever default a later
template brings. So what a deployment began with is a parameter whose default is the option's
value. An option that is left out later changes nothing, and one that says something else is
refused before anything is touched.
"""

from aws_cdk import (
    Aws,
    CfnCondition,
    CfnParameter,
    CfnRule,
    CfnRuleAssertion,
    Fn,
    ICfnRuleConditionExpression,
    RemovalPolicy,
    Size,
    Tags,
    Token,
)
from aws_cdk import aws_ec2 as ec2
from constructs import Construct

from llavachat_cdk.configuration import Options
from llavachat_cdk.savings import VOLUME_TAG

REMOVAL = {
    "snapshot": RemovalPolicy.SNAPSHOT,
    "retain": RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE,
    "delete": RemovalPolicy.DESTROY,
}


def build_volume(
    scope: Construct, *, name: str, options: Options, zone: str
) -> tuple[ec2.Volume, str]:
    """The chats' own volume, encrypted; under one logical id for ever, as a new one has no chats.

    Args:
        name: the deployment's.
        zone: the machine's; a token unless chosen.

    Returns:
        The volume, and the snapshot that it was made from: a token, "" for none.
    """
    keep_zone(scope, options.zone)
    began_from = keep_snapshot(scope, options.restore_snapshot_id)
    volume = ec2.Volume(
        scope,
        "Chats",
        availability_zone=zone,
        size=Size.gibibytes(options.chats_gib),
        snapshot_id=leave_out_if_empty(scope, began_from),
        volume_type=ec2.EbsDeviceVolumeType.GP3,
        encrypted=True,
        removal_policy=REMOVAL[options.chats_on_delete],
    )
    Tags.of(volume).add(VOLUME_TAG, name)
    return volume, began_from


def keep(scope: Construct, id: str, chosen: str, what: str) -> str:
    """What an option said when the deployment began, as a token."""
    parameter = CfnParameter(scope, id, default=chosen, description=f"{what}; leave it as it is")
    return parameter.value_as_string


def keep_zone(scope: Construct, chosen: str) -> None:
    """Refuse another zone. One that began in the region's first may name it later."""
    began = keep(scope, "BeganInZone", chosen, "The zone option that the deployment began with")
    refuse_unless(
        scope,
        "StaysInItsZone",
        Fn.condition_or(Fn.condition_equals(began, chosen), Fn.condition_equals(began, "")),
        f"zone={chosen or 'none'} is not the one that this deployment began with, and its chats "
        "live there. Give that one; 'Another zone' in docs/deploy.md tells how chats move.",
    )


def keep_snapshot(scope: Construct, chosen: str) -> str:
    """Refuse another snapshot than that of the beginning; that one, as a token."""
    what = "The snapshot that the chats' volume was made from"
    began = keep(scope, "BeganFromSnapshot", chosen, what)
    if chosen:
        refuse_unless(
            scope,
            "KeepsItsChats",
            Fn.condition_equals(began, chosen),
            "restore_snapshot_id is for a deployment that begins: this one stands and has chats of "
            "its own. Leave it out, or begin another deployment from the snapshot.",
        )
    return began


def leave_out_if_empty(scope: Construct, began: str) -> str:
    """The snapshot, or no value.

    Never "": CloudFormation is known to replace a volume that was made from that snapshot.
    https://github.com/aws-cloudformation/cloudformation-coverage-roadmap/issues/1400
    """
    restored = CfnCondition(
        scope, "Restored", expression=Fn.condition_not(Fn.condition_equals(began, ""))
    )
    return Token.as_string(Fn.condition_if(restored.logical_id, began, Aws.NO_VALUE))


def refuse_unless(
    scope: Construct, id: str, holds: ICfnRuleConditionExpression, refusal: str
) -> None:
    """Have CloudFormation refuse the whole change with a sentence, before it begins."""
    CfnRule(scope, id, assertions=[CfnRuleAssertion(assert_=holds, assert_description=refusal)])
