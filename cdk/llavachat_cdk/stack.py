"""The stack: composes one `LlavaChat` and says how to use it."""

from typing import Any

from aws_cdk import CfnOutput, Stack
from constructs import Construct

from llavachat_cdk.configuration import Options
from llavachat_cdk.costs import estimate_cost
from llavachat_cdk.llavachat import LlavaChat
from llavachat_cdk.network import PORT
from llavachat_cdk.release import Release


class LlavaChatStack(Stack):
    """One deployment; its outputs are commands to copy.

    Attributes:
        chat: the service.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        options: Options,
        release: Release | None = None,
        **properties: Any,
    ) -> None:
        super().__init__(scope, id, **properties)
        self.chat = LlavaChat(self, "Chat", options=options, release=release, name=self.stack_name)
        for name, (value, text) in self.list_outputs().items():
            CfnOutput(self, name, value=value, description=text)

    def list_outputs(self) -> dict[str, tuple[str, str]]:
        """What to type next, by the name of the output."""
        chat, host = self.chat, self.chat.host
        options = chat.options
        region = f"--region {self.region}"
        outputs = {
            "Tunnel": (
                f"aws ssm start-session {region} --target {host.target} "
                "--document-name AWS-StartPortForwardingSession "
                f"--parameters portNumber={PORT},localPortNumber={PORT}",
                "Brings the service to localhost while it runs",
            ),
            "ApiKey": (
                f"aws secretsmanager get-secret-value {region} --query SecretString "
                f"--output text --secret-id {chat.service.api_key.secret_arn}",
                "Prints the key that clients send",
            ),
            "Certificate": (
                f"aws secretsmanager get-secret-value {region} --query SecretString "
                f"--output text --secret-id {chat.service.certificate.secret_arn} "
                "| python3 -c 'import json,sys; print(json.load(sys.stdin)[\"certificate\"])' "
                "> llavachat.pem",
                "Saves the certificate that clients trust",
            ),
            "Logs": (
                f"aws logs tail {region} --follow {host.service_log}",
                "Follows the service's log",
            ),
            "InstallLog": (
                f"aws logs tail {region} --since 1h {host.install_log}",
                "Shows the newest first boot",
            ),
            "Cost": (
                "about USD {:.2f} an hour while it runs, USD {:.2f} a month besides".format(
                    *estimate_cost(options)
                ),
                "An estimate from us-east-1 list prices",
            ),
        }
        if host.instance:
            outputs |= {
                "Stop": (
                    f"aws ec2 stop-instances {region} --instance-ids {host.target}",
                    "Stops the machine; the chats stay",
                ),
                "Start": (
                    f"aws ec2 start-instances {region} --instance-ids {host.target}",
                    "Starts it again",
                ),
                "InstanceId": (host.instance.instance_id, "The machine"),
                "ImageId": (
                    host.image_id,
                    "The image in use; `-c ami_id=` this keeps the machine when a newer one comes",
                ),
            }
        if host.group:
            scale = f"aws autoscaling set-desired-capacity {region} --auto-scaling-group-name"
            outputs |= {
                "Stop": (
                    f"{scale} {host.group.auto_scaling_group_name} --desired-capacity 0",
                    "Ends the machine; the chats stay",
                ),
                "Start": (
                    f"{scale} {host.group.auto_scaling_group_name} --desired-capacity 1",
                    "Brings a new machine",
                ),
            }
        if options.private_name:
            outputs["Address"] = (
                f"{options.private_name}:{PORT}",
                "What callers inside the network use",
            )
        return outputs
