"""The CDK app: one llavachat deployment from the options in cdk.json and ``-c``."""

import sys

import aws_cdk
from llavachat_cdk import ConfigurationError, LlavaChatStack, read_context


def main() -> int:
    """Synthesise; 1 if an option is wrong."""
    # CDK's own check of the template takes twice as long as all else; the tests make it, for all
    # options, and CloudFormation makes it before it changes anything.
    app = aws_cdk.App(builtin_cloud_formation_validation=False)
    try:
        options = read_context(app.node.get_all_context())
        LlavaChatStack(app, options.stack_name, options=options)
    except ConfigurationError as error:
        print(f"llavachat cannot be deployed like this:\n{error}", file=sys.stderr)  # noqa: T201
        return 1
    app.synth()
    return 0


if __name__ == "__main__":
    sys.exit(main())
