"""The picture of the stack in the README."""

import sys

import pytest
from conftest import ROOT, Template

sys.path.insert(0, str(ROOT / "scripts"))

from draw_architecture import draw


def test_the_picture_is_of_this_stack(template: Template) -> None:
    """`make architecture` draws it anew."""
    assert (ROOT / "docs" / "architecture.svg").read_text() == draw(template)


def test_what_is_not_drawn_is_refused(template: Template) -> None:
    """By its name, so that the picture cannot fall behind."""
    more = {"Queue": {"Type": "AWS::SQS::Queue"}}
    with pytest.raises(ValueError, match=r"Queue \(AWS::SQS::Queue\)"):
        draw(template | {"Resources": template["Resources"] | more})


def test_a_door_that_is_opened_is_told(template: Template) -> None:
    """The picture follows the security group's rules."""
    resources = {
        name: resource
        if resource["Type"] != "AWS::EC2::SecurityGroup"
        else resource
        | {
            "Properties": resource["Properties"]
            | {"SecurityGroupIngress": [{"FromPort": 22, "CidrIp": "10.0.0.0/8"}]}
        }
        for name, resource in template["Resources"].items()
    }
    picture = draw(template | {"Resources": resources})
    assert "in: 22 from 10.0.0.0/8" in picture
    assert "the only way in" not in picture
