"""Options that several commands share, in lm-eval's spelling and in ours. Imports nothing heavy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from gateway_evals.gates import Gate


def spelt(name: str, *more: str) -> list[str]:
    """Both spellings of a name: snake_case as lm-eval has it, kebab-case as command lines have it."""
    return list(dict.fromkeys([f"--{name}", f"--{name.replace('_', '-')}", *more]))


def _limit(text: str) -> Any:
    from gateway_evals.limits import parse_limit

    try:
        return parse_limit(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _settings(text: str) -> Any:
    from gateway_evals.overrides import parse_gen_kwargs

    try:
        return parse_gen_kwargs(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def gates_of(texts: list[str] | None) -> list[Gate]:
    """Raises typer.BadParameter."""
    from gateway_evals.errors import EvaluationError
    from gateway_evals.gates import parse_gate

    try:
        return [parse_gate(text) for text in texts or ()]
    except EvaluationError as error:
        raise typer.BadParameter(error.message, param_hint="--gate") from None


BaseUrl = Annotated[str, typer.Option(*spelt("base_url"), envvar="GATEWAY_URL", help="The gateway's address.")]
ApiKey = Annotated[
    str | None,
    typer.Option(*spelt("api_key"), envvar="GATEWAY_API_KEY", help="A key, where keys are on.", show_default=False),
]
Output = Annotated[Path, typer.Option("--output", *spelt("output_path"), "-o", help="Folder for results and samples.")]
Limited = Annotated[
    Any,
    typer.Option(
        "--limit", parser=_limit, metavar="N", help="Rows a task (10), a share (0.1), or some (10-20).",
        show_default=False,
    ),
]  # fmt: skip
Concurrency = Annotated[int, typer.Option("--concurrency", min=1, max=1024, help="Most samples in flight.")]
Seed = Annotated[int, typer.Option("--seed", help="For few-shot examples, sampling and bootstrap.")]
Timeout = Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds for one request.")]
FailOnError = Annotated[
    float | None,
    typer.Option(
        *spelt("fail_on_error"), min=0, max=1, metavar="FRACTION", help="Give up beyond this share of failed samples.",
        show_default=False,
    ),
]  # fmt: skip
Tasks = Annotated[
    str | None,
    typer.Option("--tasks", metavar="A,B", help="Only these tasks; without SUITE, tasks and suites by name.",
                 show_default=False),
]  # fmt: skip
IncludePath = Annotated[
    list[Path] | None,
    typer.Option(*spelt("include_path"), help="A folder of more suites and tasks; again for more.",
                 show_default=False),
]  # fmt: skip
NumFewshot = Annotated[
    int | None, typer.Option(*spelt("num_fewshot"), min=0, help="Examples before each question.", show_default=False)
]
ApplyChatTemplate = Annotated[
    bool | None,
    typer.Option("--apply_chat_template/--no_chat_template", "--apply-chat-template/--no-chat-template",
                 help="Ask through the model's template, or not, whatever the tasks say.", show_default=False),
]  # fmt: skip
SystemInstruction = Annotated[
    str | None, typer.Option(*spelt("system_instruction"), help="A system prompt for all tasks.", show_default=False)
]
GenKwargs = Annotated[
    Any,
    typer.Option(
        *spelt("gen_kwargs"), parser=_settings, metavar="K=V,…", help="Generation settings for all tasks.",
        show_default=False,
    ),
]  # fmt: skip
LogSamples = Annotated[
    bool, typer.Option(*spelt("log_samples"), help="As lm-eval: samples are always written, so this changes nothing.")
]
UseCache = Annotated[
    Path | None,
    typer.Option(*spelt("use_cache"), help="File of answers given before.", show_default="in the cache folder"),
]
NoCache = Annotated[bool, typer.Option("--no-cache", "--no_cache", help="Ask everything anew, and keep nothing.")]
AllowCode = Annotated[
    bool,
    typer.Option("--allow-code", "--allow_code", envvar="GATEWAY_EVAL_ALLOW_CODE",
                 help="Let tasks run programs that the model wrote, fenced in, on this machine."),
]  # fmt: skip
NoStream = Annotated[
    bool, typer.Option("--no-stream", "--no_stream", help="Whole answers: no time to the first token.")
]
Gates = Annotated[
    list[str] | None,
    typer.Option(
        "--gate",
        help="`task:metric>=0.3` (the value), `task:lower(metric)>=0.3` (its 95 % interval's lower bound); again for "
        "more. Ends with 1 where one fails.",
        metavar="GATE", show_default=False,
    ),
]  # fmt: skip
Baseline = Annotated[
    str | None,
    typer.Option("--baseline", metavar="RUN", help="A finished run that must not be undercut.", show_default=False),
]
NoWorse = Annotated[
    float,
    typer.Option(*spelt("no_worse"), min=0, help="How much worse than the baseline is still as good; it must be ruled "
                 "out by the paired 95 % interval."),
]  # fmt: skip
Junit = Annotated[
    Path | None, typer.Option("--junit", help="Write the run and its gates as JUnit XML.", show_default=False)
]
Markdown = Annotated[Path | None, typer.Option("--markdown", help="Write them as Markdown.", show_default=False)]
JsonReport = Annotated[
    Path | None, typer.Option("--report-json", "--report_json", help="Write them as JSON.", show_default=False)
]
HtmlReport = Annotated[
    Path | None,
    typer.Option("--report", help="Write the run as one HTML file (`gateway eval report`).", show_default=False),
]
ProgressPath = Annotated[
    Path | None,
    typer.Option(*spelt("progress_file"), help="A file that says how far it is, for other programs.",
                 show_default=False),
]  # fmt: skip
