"""What cdk-nag's AwsSolutions pack objects to and we keep, each with its reason.

Waivers stand on the construct they are for, so that they travel into others' stacks with it.
"""

from collections.abc import Mapping
from typing import Any

from aws_cdk import Acknowledgment, Stack, Validations
from constructs import Construct


def waive(construct: Construct, reasons: Mapping[str, str]) -> None:
    """Keep what the named rules object to on `construct`.

    Args:
        reasons: why, by the rule's name, such as ``S1``.
    """
    Validations.of(construct).acknowledge(
        *(
            Acknowledgment(id=f"AwsSolutions::AwsSolutions-{rule}", reason=reason)
            for rule, reason in reasons.items()
        )
    )


def waive_wildcards(construct: Construct, reasons: Mapping[str, str]) -> None:
    """Keep the wildcards in a policy's resources.

    Args:
        reasons: why, by the resource as the policy names it.
    """
    stack = Stack.of(construct)
    waive(
        construct,
        {
            f"IAM5[Resource::{flatten(stack.resolve(resource))}]": reason
            for resource, reason in reasons.items()
        },
    )


def flatten(value: Any) -> str:
    """A resolved ARN as cdk-nag writes it: references in angle brackets."""
    if isinstance(value, str):
        return value
    if "Fn::Join" in value:
        return "".join(flatten(part) for part in value["Fn::Join"][1])
    if "Fn::GetAtt" in value:
        return "<" + ".".join(value["Fn::GetAtt"]) + ">"
    return f"<{value['Ref']}>"
