"""The options' table of docs/deploy.md: ``python -m llavachat_cdk.documentation`` prints it."""

from llavachat_cdk.configuration import Options


def write_table() -> str:
    """A Markdown table of every option."""
    lines = [
        "| option | default | what it does | allowed | US dollars a month |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, field in Options.model_fields.items():
        extra = field.json_schema_extra
        assert isinstance(extra, dict)
        default = field.default
        shown = ",".join(default) if isinstance(default, list) else str(default)
        if isinstance(default, bool):
            shown = shown.lower()
        cells = (
            f"`{name}`",
            f"`{shown}`" if shown else "none",
            field.description,
            extra["allowed"],
            extra["cost"] or "-",
        )
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(write_table())  # noqa: T201
