"""The CDK app: one llavachat deployment from the options in cdk.json and ``-c``."""

import sys

import aws_cdk
from llavachat_cdk import ConfigurationError, LlavaChatStack, read_context


def main() -> int:
    """Synthesise; 1 if an option is wrong."""
    app = aws_cdk.App()
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
