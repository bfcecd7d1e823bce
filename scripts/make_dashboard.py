"""Writes docs/observability/dashboard.json, for Grafana 11.6 and newer: a panel for each `Plot`.

    python scripts/make_dashboard.py [FILE]

The form is that of Grafana's own library; what is shown stands below.
"""

import sys
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders import common, dashboard, prometheus, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    LegendDisplayMode,
    LegendPlacement,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DataSourceRef,
    VariableHide,
    VariableOption,
    VariableRefresh,
)

FILE = Path(__file__).parent.parent / "docs" / "observability" / "dashboard.json"

WIDTH, HEIGHT = 8, 7
"""Of a panel; a row is 24 wide."""

HERE = 'instance=~"$instance"'
RATE = "[$__rate_interval]"


@dataclass(frozen=True)
class Plot:
    """A panel.

    Args:
        title: what it shows, with its unit where Grafana shows none.
        unit: Grafana's name of it.
        queries: each with the legend of its series.
        about: what it means, and what to do.
    """

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    about: str = ""


def quantiles(name: str, *shares: float) -> tuple[tuple[str, str], ...]:
    """Quantiles of a histogram over all instances that are looked at."""
    rate = f"sum by (le) (rate({name}_bucket{{{HERE}}}{RATE}))"
    return tuple(
        (f"histogram_quantile({share}, {rate})", f"p{round(100 * share)}") for share in shares
    )


def per_second(name: str, by: str) -> tuple[tuple[str, str], ...]:
    """A counter's rate, by a label."""
    return ((f"sum by ({by}) (rate({name}{{{HERE}}}{RATE}))", f"{{{{{by}}}}}"),)


def share(name: str) -> tuple[tuple[str, str], ...]:
    """Hits of all lookups."""
    hits = f'sum(rate({name}{{{HERE}, result="hit"}}{RATE}))'
    return ((f"{hits} / sum(rate({name}{{{HERE}}}{RATE}))", "hits"),)


ROWS: dict[str, tuple[Plot, ...]] = {
    "Is it well?": (
        Plot(
            "State",
            "none",
            ((f"max by (state) (llavachat_server_state{{{HERE}}})", "{{state}}"),),
            "1 for the state that the server is in. Nothing at all: it is down.",
        ),
        Plot(
            "Failed and refused, per second",
            "reqps",
            per_second("llavachat_refusals_total", "reason"),
            "Every reason is explained in docs/observability/README.md.",
        ),
        Plot(
            "Since its start",
            "s",
            ((f"time() - process_start_time_seconds{{{HERE}}}", "{{instance}}"),),
            "It falls to zero at each restart.",
        ),
    ),
    "Is it fast?": (
        Plot(
            "Time to first token",
            "s",
            quantiles("gen_ai_server_time_to_first_token_seconds", 0.5, 0.95, 0.99),
            "What a person waits for. Look below at where the time goes.",
        ),
        Plot(
            "Time per output token",
            "s",
            quantiles("gen_ai_server_time_per_output_token_seconds", 0.5, 0.95),
            "Decoding alone. Above 0.25 s people read faster than it writes.",
        ),
        Plot(
            "Where the time of a turn goes, mean",
            "s",
            (
                (
                    f"sum by (phase) (rate(llavachat_turn_phase_duration_seconds_sum{{{HERE}}}"
                    f"{RATE})) / sum by (phase) "
                    f"(rate(llavachat_turn_phase_duration_seconds_count{{{HERE}}}{RATE}))",
                    "{{phase}}",
                ),
            ),
        ),
        Plot("Tokens per second", "none", per_second("llavachat_tokens_total", "kind")),
        Plot(
            "Whole turns",
            "s",
            quantiles("gen_ai_server_request_duration_seconds", 0.5, 0.95),
        ),
        Plot(
            "Waiting for the store",
            "s",
            quantiles("llavachat_store_commit_duration_seconds", 0.5, 0.99),
            "Until a question or an answer is on the disk.",
        ),
    ),
    "Is it full?": (
        Plot(
            "Turns",
            "none",
            (
                (f"sum(llavachat_turns_running{{{HERE}}})", "running"),
                (f"sum(llavachat_turns_queued{{{HERE}}})", "queued"),
                (f"sum(llavachat_turns_running_limit{{{HERE}}})", "running at most"),
                (f"sum(llavachat_turns_queued_limit{{{HERE}}})", "queued at most"),
            ),
        ),
        Plot(
            "Key-value cache",
            "percentunit",
            (
                (
                    f"sum by (state) (llavachat_kv_cache_tokens{{{HERE}}}) / ignoring (state) "
                    f"group_left sum(llavachat_kv_cache_tokens{{{HERE}}})",
                    "{{state}}",
                ),
            ),
            "Held by running turns; kept: a prefix that may be used again; free.",
        ),
        Plot(
            "GPU",
            "percentunit",
            (
                (f"hw_gpu_utilization{{{HERE}}}", "{{hw_name}} busy"),
                (
                    f"hw_gpu_memory_usage_bytes{{{HERE}}} / hw_gpu_memory_limit_bytes{{{HERE}}}",
                    "{{hw_name}} memory",
                ),
            ),
            "Nothing: there is no GPU, or no driver.",
        ),
        Plot("GPU temperature", "celsius", ((f"hw_temperature_celsius{{{HERE}}}", "{{hw_name}}"),)),
        Plot(
            "Memory",
            "bytes",
            ((f"process_resident_memory_bytes{{{HERE}}}", "{{instance}}"),),
        ),
        Plot(
            "Open files",
            "percentunit",
            (
                (
                    f"process_open_fds{{{HERE}}} / process_max_fds{{{HERE}}}",
                    "{{instance}}",
                ),
            ),
        ),
    ),
    "Who asks what?": (
        Plot("Turns per second", "none", per_second("llavachat_turns_total", "finish_reason")),
        Plot(
            "Calls per second",
            "reqps",
            per_second("rpc_server_call_duration_seconds_count", "rpc_method"),
        ),
        Plot(
            "Streams whose reader left, per second",
            "none",
            ((f"sum(rate(llavachat_streams_dropped_total{{{HERE}}}{RATE}))", "dropped"),),
        ),
        Plot(
            "Prompt tokens that were cached",
            "percentunit",
            share("llavachat_prefix_cache_tokens_total"),
            "Follow-up questions cost no more than what is new in them.",
        ),
        Plot(
            "Pictures that were cached",
            "percentunit",
            share("llavachat_image_cache_images_total"),
        ),
        Plot(
            "Restarts of the generation loop",
            "none",
            ((f"sum(llavachat_engine_restarts_total{{{HERE}}})", "restarts"),),
            "It restarts once by itself; a second failure ends the process.",
        ),
    ),
}


def build_dashboard() -> Any:
    """The dashboard as Grafana's library has it."""
    source = DataSourceRef(type_val="prometheus", uid="${datasource}")
    board = (
        dashboard.Dashboard("llavachat")
        .uid("llavachat")
        .description("One llavachat server, or several: is it well, fast, full; and who asks what.")
        .tags(["llavachat", "generative-ai"])
        .timezone("browser")
        .refresh("30s")
        .time("now-3h", "now")
        .with_variable(
            dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus")
        )
        .with_variable(
            dashboard.QueryVariable("instance")
            .label("Server")
            .datasource(source)
            .query("label_values(llavachat_server_state, instance)")
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .multi(True)
            .include_all(True)
            .all_value(".*")
            .current(VariableOption(selected=True, text="All", value="$__all"))
            .hide(VariableHide.DONT_HIDE)
        )
    )
    numbers = count(1)
    for title, plots in ROWS.items():
        board = board.with_row(dashboard.Row(title).id(next(numbers)))
        for plot in plots:
            board = board.with_panel(build_panel(plot, source).id(next(numbers)))
    return board.build()


def build_panel(plot: Plot, source: DataSourceRef) -> Any:
    """One panel."""
    panel = (
        timeseries.Panel()
        .title(plot.title)
        .description(plot.about)
        .datasource(source)
        .unit(plot.unit)
        .min(0)
        .height(HEIGHT)
        .span(WIDTH)
        .fill_opacity(10)
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
    )
    for number, (query, legend) in enumerate(plot.queries):
        panel = panel.with_target(
            prometheus.Dataquery().expr(query).legend_format(legend).ref_id(chr(ord("A") + number))
        )
    return panel


def render() -> str:
    """The file's text."""
    text: str = JSONEncoder(sort_keys=True, indent=2).encode(build_dashboard())
    return text + "\n"


if __name__ == "__main__":
    target = Path(sys.argv[1]) if sys.argv[1:] else FILE
    target.write_text(render())
    print(f"wrote {target}")
