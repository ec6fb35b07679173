"""What `drift` says: a table, the shares of classes, and a sentence on what to do."""

import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tf_finetune.evaluation.drift import CONFIDENCE as COVERED
from tf_finetune.evaluation.drift import MODERATE, Divergence, Verdict, worst

# Classes whose shares are printed, those that changed most.
SHOWN_CLASSES = 12
# Standard deviations of the reference by which a mean has to move before it is what a drift is told by.
MOVED = 0.2


@dataclasses.dataclass(frozen=True)
class Property:
    """Something that is measured of each text.

    Attributes:
        name: in JSON.
        title: in the table.
        higher: what to say where its mean is higher.
        lower: where it is lower.
        other: where the mean is about the same and the rest is not.
        form: how a number is written.
        unit: behind a mean.
    """

    name: str
    title: str
    higher: str = ""
    lower: str = ""
    other: str = ""
    form: str = ""
    unit: str = ""


TOKENS = Property(
    "tokens",
    "tokens a text",
    higher="the new texts are longer",
    lower="the new texts are shorter",
    other="the new texts are of other lengths",
    form=".1f",
    unit=" tokens",
)
UNKNOWN = Property(
    "unknown_tokens",
    "unknown tokens",
    higher="more of the tokens are unknown",
    lower="fewer of the tokens are unknown",
    other="unknown tokens are spread in another way",
    form=".2%",
)
CLASS = Property("predicted_class", "predicted class")
CONFIDENCE = Property(
    "confidence",
    "confidence",
    higher="the answers are surer",
    lower="the answers are less sure",
    other="the answers are sure in another way",
    form=".3f",
)
NUMBER = Property(
    "predicted_number",
    "predicted number",
    higher="the answers are higher",
    lower="the answers are lower",
    other="the answers are spread in another way",
    form=".4g",
)


@dataclasses.dataclass(frozen=True)
class Compared:
    """A property of two samples.

    Attributes:
        property: which.
        means: of the reference and the new texts; None where it has classes.
        spread: the reference's standard deviation; 0 where it has classes.
        divergence: how they differ.
        p_adjusted: the p-value among those of all properties.
        verdict: of this property.
    """

    property: Property
    means: tuple[float, float] | None
    spread: float
    divergence: Divergence
    p_adjusted: float
    verdict: Verdict

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        of, means = self.divergence, self.means
        return {
            "verdict": self.verdict.value,
            **({} if means is None else {"reference_mean": means[0], "new_mean": means[1]}),
            "psi": of.psi,
            "psi_interval": list(of.psi_interval),
            "js": of.js,
            "js_interval": list(of.js_interval),
            "p_value": of.p_value,
            "p_adjusted": self.p_adjusted,
            "psi_of_chance": of.psi_of_chance,
            "bins": [
                {"bin": name, "reference": before, "new": now}
                for name, before, now in zip(of.bins, of.reference, of.new, strict=True)
            ],
        }

    @property
    def shares(self) -> dict[str, tuple[float, float]]:
        """Of the reference and the new texts in each bin, by its name."""
        of = self.divergence
        sizes = sum(of.reference), sum(of.new)
        counted = zip(of.bins, of.reference, of.new, strict=True)
        return {name: (before / sizes[0], now / sizes[1]) for name, before, now in counted}

    @property
    def has_drifted(self) -> bool:
        return self.verdict is not Verdict.STABLE


def lines(properties: Sequence[Compared], *, split: str, workdir: Path) -> list[str]:
    """All of it, for a terminal.

    Args:
        properties: in their order.
        split: which of the run's is the reference.
        workdir: of the run.
    """
    interval = f"({COVERED:.0%} interval)"
    header = (
        f"{'property':<18}{'reference':>18}{'new':>18}{f'PSI {interval}':>26}{f'JS {interval}':>26}{'p':>9}  verdict"
    )
    printed = [header, *map(_row, properties)]
    for compared in properties:
        if compared.property is CLASS and compared.has_drifted:
            printed += _class_lines(compared)
    printed.append("PSI and JS: less what chance alone adds; p: by chance, adjusted for the number of properties")
    return [*printed, _advice(properties, split=split, workdir=workdir)]


def _row(compared: Compared) -> str:
    of = compared.divergence
    if compared.means is None:
        most = max(compared.shares, key=lambda name: compared.shares[name][0])
        before, now = (f"{most[:10]} {share:.1%}" for share in compared.shares[most])
    else:
        before, now = (format(mean, compared.property.form) for mean in compared.means)
    measures = (
        f"{value:.3f} ({low:.3f} to {high:.3f})"
        for value, (low, high) in ((of.psi, of.psi_interval), (of.js, of.js_interval))
    )
    cells = f"{before:>18}{now:>18}" + "".join(f"{text:>26}" for text in measures)
    return f"{compared.property.title:<18}{cells}{compared.p_adjusted:>9.4f}  {compared.verdict.value}"


def _class_lines(compared: Compared) -> list[str]:
    names = _by_change(compared)
    shown = names[:SHOWN_CLASSES]
    printed = [
        f"  {name[:30]:<32}{before:>8.1%} -> {now:.1%}"
        for name, (before, now) in ((n, compared.shares[n]) for n in shown)
    ]
    return printed + [f"  and {len(names) - len(shown)} more classes"] * (len(names) > len(shown))


def _by_change(compared: Compared) -> list[str]:
    """The bins, those first whose shares changed most."""
    changes = {name: abs(now - before) for name, (before, now) in compared.shares.items()}
    return sorted(changes, key=lambda name: (round(changes[name], 9), compared.shares[name][1]), reverse=True)


def _advice(properties: Sequence[Compared], *, split: str, workdir: Path) -> str:
    drifted = [compared for compared in properties if compared.has_drifted]
    if drifted:
        what = " and ".join(map(_clause, drifted))
        command = f"tf-finetune evaluate --workdir={shlex.quote(str(workdir))} --config.data.source=LABELLED_FILE"
        found = worst([compared.verdict for compared in drifted]).value
        return f"{found} drift: {what}: label some and evaluate before trusting the answers: {command}"
    hidden = max(compared.divergence.psi_of_chance for compared in properties)
    but = f"; among so few texts a PSI below {hidden:.2f} would not stand out from chance" if hidden > MODERATE else ""
    return f"no drift found: the new texts and their answers look like those of the {split} split{but}"


def _clause(compared: Compared) -> str:
    of = compared.property
    if compared.means is None:
        name = _by_change(compared)[0]
        before, now = compared.shares[name]
        return f"{name!r} is answered {'more' if now > before else 'less'} often ({now:.1%} instead of {before:.1%})"
    before, now = (format(mean, of.form) for mean in compared.means)
    change = compared.means[1] - compared.means[0]
    words = of.other if abs(change) <= MOVED * compared.spread else of.higher if change > 0 else of.lower
    return f"{words} (a mean of {now}{of.unit} instead of {before})"
