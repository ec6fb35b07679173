"""Makes results.md and results.svg of what compare.py has stored.

python benchmarks/report.py [RESULTS.jsonl [FOLDER]]
"""

import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import compare

from tf_finetune.bert.architecture import BertArchitecture
from tf_finetune.bert.flops import step_flops

Line = dict[str, Any]
MINILM = BertArchitecture(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)
NAMES = {
    "ours": "tf_finetune",
    "trainer_tutorial": "PyTorch, tutorial",
    "pytorch_tuned": "PyTorch, tuned",
    "keras_hub_default": "keras-hub, default",
    "keras_hub_tuned": "keras-hub, tuned",
    "old_tf_class": "old TF class",
}


class Quantity(NamedTuple):
    """What is read off a result: how much of it, and whether more is better."""

    title: str
    measurement: str
    field: str
    unit: str = ""
    scale: float = 1.0
    more_is_better: bool = True


QUANTITIES = (
    Quantity("Training on the packaged reviews", "reviews", "examples_per_second", "texts/s"),
    Quantity("Training on texts as long as IMDB's", "long", "examples_per_second", "texts/s"),
    Quantity("Training, shapes of BERT-base, texts as long as IMDB's", "base", "examples_per_second", "texts/s"),
    Quantity("One step of 16 x 128 full tokens in bfloat16", "one_step", "step_ms", "ms", more_is_better=False),
    Quantity(
        "Start of the process to the final accuracy of PyTorch's tutorial",
        "accuracy",
        "seconds_to_tutorial",
        "s",
        more_is_better=False,
    ),
    Quantity("Start of the process to the first finished step", "reviews", "first_step_s", "s", more_is_better=False),
    Quantity("Evaluation of the packaged reviews", "reviews", "evaluated_per_second", "texts/s"),
    Quantity("Evaluation of texts as long as IMDB's", "long", "evaluated_per_second", "texts/s"),
    Quantity("Tokenisation of the packaged reviews", "reviews", "tokenised_per_second", "texts/s"),
    Quantity("Tokenisation of texts as long as IMDB's", "long", "tokenised_per_second", "texts/s"),
    Quantity("Peak memory, packaged reviews", "reviews", "peak_bytes", "GiB", 2**-30, more_is_better=False),
    Quantity("Peak memory, texts as long as IMDB's", "long", "peak_bytes", "GiB", 2**-30, more_is_better=False),
)


def values(lines: list[Line], quantity: Quantity, peer: str) -> dict[int, float]:
    """The value of each round that has one."""
    found = {}
    for line in lines:
        value = line["result"].get(quantity.field)
        if (line["measurement"], line["peer"]) == (quantity.measurement, peer) and value is not None:
            found[line["round"]] = quantity.scale * value
    return found


def advantages(lines: list[Line], quantity: Quantity, peer: str) -> list[float]:
    """How many times as good as a peer we are, in each round that both have finished."""
    ours, theirs = values(lines, quantity, "ours"), values(lines, quantity, peer)
    both = [(ours[i], theirs[i]) for i in sorted(ours.keys() & theirs.keys())]
    return [mine / its if quantity.more_is_better else its / mine for mine, its in both]


def why_not(lines: list[Line], measurement: str, peer: str) -> str:
    """Why a peer has no value."""
    for line in lines:
        if (line["measurement"], line["peer"]) == (measurement, peer):
            if "error" in line["result"]:
                return f"left out: {line['result']['error']}"
            if measurement == "accuracy":
                best = max((one["accuracy"] for one in line["result"]["validations"]), default=None)
                return "no epoch ended" if best is None else f"not reached: {best:.4f} at best"
    return "not run"


def spread(numbers: list[float], form: Callable[[float], str]) -> str:
    """`median (least to most)`."""
    middle = form(statistics.median(numbers))
    return f"{middle} ({form(min(numbers))} to {form(max(numbers))})" if len(numbers) > 1 else middle


def three_digits(number: float) -> str:
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"


def table(lines: list[Line], quantity: Quantity) -> list[str]:
    better = "ours is so many times as fast" if quantity.field != "peak_bytes" else "so many times ours"
    made = [f"| | {quantity.unit}, median (least to most) | {better} | rounds |", "|---|---|---|---|"]
    for peer, name in NAMES.items():
        numbers = list(values(lines, quantity, peer).values())
        if numbers:
            ratios = advantages(lines, quantity, peer)
            ratio = spread(ratios, lambda x: f"{x:.2f}") if ratios and peer != "ours" else ""
            made.append(f"| {name} | {spread(numbers, three_digits)} | {ratio} | {len(numbers)} |")
        elif (why := why_not(lines, quantity.measurement, peer)) != "not run":
            made.append(f"| {name} | {why} | | |")
    return made


def summary(lines: list[Line]) -> list[str]:
    """How many times as good we are, by the median, for each peer."""
    peers = [peer for peer in NAMES if peer != "ours"]
    made = [f"| | {' | '.join(NAMES[peer] for peer in peers)} |", "|---" * (len(peers) + 1) + "|"]
    for quantity in QUANTITIES:
        if not values(lines, quantity, "ours"):
            continue
        cells = []
        for peer in peers:
            ratios = advantages(lines, quantity, peer)
            cells.append(f"{statistics.median(ratios):.2f}" if ratios else "")
        made.append(f"| {quantity.title} | {' | '.join(cells)} |")
    return made


def matrix_rates(lines: list[Line]) -> dict[int, float]:
    """Operations a second of the faster library's large product, by round."""
    found: dict[int, float] = {}
    for line in lines:
        rate = line["result"].get("flops_per_second")
        if rate is not None:
            found[line["round"]] = max(rate, found.get(line["round"], 0.0))
    return found


def one_step(lines: list[Line]) -> list[str]:
    """The share of the matrix rate that each peer's step comes to."""
    rates, sizes = matrix_rates(lines), {"batch_size": 16, "length": 128}
    flops, ours = step_flops(MINILM, **sizes, first_only=False), step_flops(MINILM, **sizes)
    if not rates:
        return []
    made = [
        f"A step is {flops / 1e9:.0f} billion operations in matrix products (forward and backward, attention's",
        f"included), {ours / 1e9:.0f} of them where the last block computes the first token alone, as ours does; a",
        "product of two 4096 x 4096 bfloat16 matrices ran at",
        f"{spread([rate / 1e9 for rate in rates.values()], three_digits)} billion a second, each round's best library.",
        "",
        "| | share of that rate |",
        "|---|---|",
    ]
    quantity = next(quantity for quantity in QUANTITIES if quantity.measurement == "one_step")
    for peer, name in NAMES.items():
        step_ms = values(lines, quantity, peer)
        of_peer = ours if peer == "ours" else flops
        shares = [of_peer / (step_ms[i] / 1000) / rates[i] for i in step_ms.keys() & rates.keys()]
        if shares:
            made.append(f"| {name} | {spread(shares, '{:.0%}'.format)} |")
    return made


def agreement(lines: list[Line]) -> list[str]:
    made = ["| | validation loss | validation accuracy | runs |", "|---|---|---|---|"]
    for peer, name in NAMES.items():
        loss, accuracy = (
            list(values(lines, Quantity("", "accuracy", field), peer).values())
            for field in ("validation_loss", "validation_accuracy")
        )
        if loss:
            cells = (spread(loss, "{:.3f}".format), spread(accuracy, "{:.4f}".format))
            made.append(f"| {name} | {cells[0]} | {cells[1]} | {len(loss)} |")
        elif (why := why_not(lines, "accuracy", peer)) != "not run":
            made.append(f"| {name} | {why} | | |")
    return made


def document(lines: list[Line]) -> str:
    """The whole page, in Markdown."""
    lines = with_times_to_tutorial(lines)
    dates, machines = sorted({line["date"] for line in lines}), sorted({line["hardware"] for line in lines})
    versions = {line["peer"]: line["versions"] for line in lines if line["peer"] in NAMES}
    parts = [
        "# Us and the others on the same work",
        "",
        "Made by `make bench`. `compare.py` says what each measurement is, and `peers/` holds what is run, with exact",
        "versions. Same texts, weights, epochs and cap of 512 tokens; rounds are interleaved, and a ratio is taken",
        "within a round. What tutorials show is 8 texts a batch in float32; the tuned peers and we take 32 in mixed",
        "bfloat16 (16 of BERT-base's shapes). Of texts as long as IMDB's we take as many as 256 times that many tokens",
        "hold, which is one text less in the mean.",
        "",
        f"{' and '.join(machines)}. {dates[0]}{f' to {dates[-1]}' if len(dates) > 1 else ''}.",
        "",
        "How many times as fast as each we are, or how many times our memory it takes:",
        "",
        *summary(lines),
        "",
        "![the same as bars](results.svg)",
        "",
    ]
    for quantity in QUANTITIES:
        if any(line["measurement"] == quantity.measurement for line in lines):
            parts += [f"## {quantity.title}", "", *table(lines, quantity), ""]
            if quantity.measurement == "one_step":
                parts += [*one_step(lines), ""]
    if any(line["measurement"] == "accuracy" for line in lines):
        parts += ["## Do all learn the same", "", *describe_agreement(lines), "", *agreement(lines), ""]
    parts += ["## Versions", ""]
    parts += [f"- {NAMES[peer]}: {', '.join(f'{k} {v}' for k, v in found.items())}" for peer, found in versions.items()]
    return "\n".join(parts) + "\n"


def with_times_to_tutorial(lines: list[Line]) -> list[Line]:
    """The lines; those of accuracy say when what the tutorial ended with in the same round was reached."""
    final = values(lines, Quantity("", "accuracy", "validation_accuracy"), "trainer_tutorial")
    made = []
    for line in lines:
        if line["measurement"] == "accuracy" and "validations" in line["result"] and line["round"] in final:
            each = line["result"]["validations"]
            reached = [one["seconds"] for one in each if one["accuracy"] >= final[line["round"]]]
            line = {**line, "result": {**line["result"], "seconds_to_tutorial": min(reached, default=None)}}
        made.append(line)
    return made


def describe_agreement(lines: list[Line]) -> list[str]:
    job = next(line["job"] for line in lines if line["measurement"] == "accuracy")
    return [
        f"After {job['epochs']} epochs over the packaged reviews, another seed each run; each peer with its own",
        f"recipe, precision and order of batches. Texts are cut at {job['max_length']} tokens here, more than any has,",
        "so that those who pad to the cap finish sooner, and lose nothing.",
    ]


def plot(lines: list[Line], path: Path) -> None:
    """Bars of how many times as fast we are."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "tf_finetune"
    import matplotlib.pyplot as plt

    shown = [quantity for quantity in QUANTITIES if quantity.field in ("examples_per_second", "step_ms")]
    shown = [quantity for quantity in shown if values(lines, quantity, "ours")]
    figure, panels = plt.subplots(1, max(1, len(shown)), figsize=(4.2 * max(1, len(shown)), 3), squeeze=False)
    for panel, quantity in zip(panels[0], shown, strict=False):
        ratios = {peer: advantages(lines, quantity, peer) for peer in NAMES if peer != "ours"}
        ratios = {peer: numbers for peer, numbers in ratios.items() if numbers}
        middles = [statistics.median(numbers) for numbers in ratios.values()]
        reach = [
            [middle - min(numbers) for middle, numbers in zip(middles, ratios.values(), strict=True)],
            [max(numbers) - middle for middle, numbers in zip(middles, ratios.values(), strict=True)],
        ]
        panel.barh([NAMES[peer] for peer in ratios], middles, xerr=reach, color="#4878a8")
        panel.axvline(1, color="black", linewidth=0.8)
        panel.set_title(quantity.title, fontsize=8)
        panel.set_xlabel("ours is so many times as fast", fontsize=8)
        panel.tick_params(labelsize=8)
        panel.invert_yaxis()
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else compare.RESULTS
    folder = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(__file__).parent
    if not source.is_file():
        raise SystemExit(f"error: no results: {source}: expected what compare.py writes")
    lines = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    (folder / "results.md").write_text(document(lines), encoding="utf-8")
    plot(lines, folder / "results.svg")
    print(f"wrote {folder / 'results.md'} and {folder / 'results.svg'}")


if __name__ == "__main__":
    main()
