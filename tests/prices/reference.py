"""A second opinion on prices: slow, plain, and written from the description of the table alone (docs/prices.md).

It reads the same two files that are compiled into weir and nothing else of it, and counts in decimals.
"""

import json
import pathlib
import re
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal, getcontext

FOLDER = pathlib.Path(__file__).resolve().parent.parent.parent / "src/price"
PICO = Decimal("0.000000000001")
getcontext().prec = 60


class Reference:
    """The gathered table with weir's additions beside it."""

    def __init__(self):
        table = json.loads((FOLDER / "prices.json").read_text())
        additions = json.loads((FOLDER / "additions.json").read_text())
        self.units = table["units"] | additions["units"]
        self.providers = table["providers"]
        self.uplifts = {provider["id"]: provider.get("uplifts", []) for provider in additions["providers"]}

    def price(self, question):
        """(listing provider, model, dollars), or None if the table does not know the provider or the model."""
        asked = self.provider(question["provider"])
        found = asked and self.find(asked, question["model"].lower())
        if not found:
            return None
        lister, model = found
        at = datetime.fromisoformat(question["at"]).astimezone(UTC)
        usage = question["usage"]
        rates = self.rates(asked, lister, model, at, question["context"], usage.get("input_tokens", 0))
        return lister["id"], model["id"], self.cost(rates, counts(usage, model.get("min_audio_seconds", 0)))

    def provider(self, name):
        name = name.strip().lower()
        for provider in self.providers:
            if provider["id"] == name:
                return provider
        for provider in self.providers:
            if "provider_match" in provider and matches(provider["provider_match"], name):
                return provider
        return None

    def find(self, asked, name):
        by_id = {provider["id"]: provider for provider in self.providers}
        for spelling in dict.fromkeys([name, dashed(name)]):
            for lister in [asked] + [by_id[other] for other in asked.get("fallback", [])]:
                for model in lister["models"]:
                    if names_model(model["match"], spelling):
                        return lister, model
        return None

    def rates(self, asked, lister, model, at, context, input_tokens):
        rates = model["rates"]
        for override in model.get("overrides", []):
            if has_begun(override, at) and is_within(override.get("utc"), at):
                rates = override["rates"]
        if lister is asked:
            first = {}
            for variant in model.get("variants", []):
                if has_begun(variant, at) and variant["if"].items() <= context.items():
                    for unit, rate in variant["rates"].items():
                        first.setdefault(unit, rate)
            rates = rates | first
        rates = {unit: tier(rate, input_tokens) for unit, rate in rates.items()}
        applicable = [
            uplift
            for uplift in self.uplifts.get(asked["id"], [])
            if has_begun(uplift, at)
            and uplift.get("if", {}).items() <= context.items()
            and ("match" not in uplift or matches(uplift["match"], model["id"].lower()))
        ]
        for uplift in applicable:
            for unit, source in uplift.get("derive", {}).items():
                if source in rates and unit not in rates:
                    rates[unit] = rounded(rates[source] * Decimal(uplift["factor"]))
        for uplift in applicable:
            if "derive" not in uplift:
                for unit in rates:
                    if unit.endswith("_tokens"):
                        rates[unit] = rounded(rates[unit] * Decimal(uplift["factor"]))
        return rates

    def cost(self, rates, counts):
        leaves, total = {}, Decimal(0)
        for unit in sorted(rates, key=lambda unit: len(self.units[unit]["within"]), reverse=True):
            inside = sum(leaf for part, leaf in leaves.items() if unit in self.units[part]["within"])
            leaves[unit] = max(0, counts.get(unit, 0) - inside)
            total += rounded(rates[unit] * leaves[unit] / self.units[unit]["per"])
        return total


def counts(usage, min_audio_seconds):
    counted = usage | {"requests": 1}
    seconds = usage.get("audio_seconds", 0) or usage.get("input_audio_seconds", 0)
    if seconds and min_audio_seconds:
        counted["audio_seconds"] = counted["input_audio_seconds"] = max(seconds, min_audio_seconds)
    return counted


def names_model(matcher, name):
    """A fine-tuned model costs more than its base: only rules that speak of fine-tuned models count."""
    if name.startswith("ft:"):
        matcher = {key: [it for it in matcher.get(key, []) if it.startswith("ft:")] for key in ("eq", "prefix")}
    return matches(matcher, name)


def matches(matcher, name):
    """Keys are alternatives, and so are their values."""
    return (
        name in [it.lower() for it in matcher.get("eq", [])]
        or any(name.startswith(it.lower()) for it in matcher.get("prefix", []))
        or any(name.endswith(it.lower()) for it in matcher.get("suffix", []))
        or any(it.lower() in name for it in matcher.get("contains", []))
        or any(re.search(it, name, re.ASCII) for it in matcher.get("regex", []))
        or ("all" in matcher and all(matches(part, name) for part in matcher["all"]))
        or ("not" in matcher and not matches(matcher["not"], name))
    )


def dashed(name):
    """The name with its compact dates spelt out."""

    def spelt(found):
        year, month, day = found[1], found[2], found[3]
        try:
            datetime(int(year), int(month), int(day))
        except ValueError:
            return found[0]
        return f"-{year}-{month}-{day}"

    return re.sub(r"-(20\d\d)(\d\d)(\d\d)(?=-|:|$)", spelt, name, flags=re.ASCII)


def has_begun(it, at):
    return "from" not in it or at.date().isoformat() >= it["from"]


def is_within(window, at):
    if window is None:
        return True
    start, end = window
    now = at.strftime("%H:%M")
    return start <= now < end if start <= end else now >= start or now < end


def tier(rate, input_tokens):
    if isinstance(rate, str):
        return Decimal(rate)
    exceeded = [(above, price) for above, price in rate["over"] if input_tokens > above]
    return Decimal(max(exceeded)[1] if exceeded else rate["base"])


def rounded(amount):
    return amount.quantize(PICO, ROUND_HALF_EVEN)
