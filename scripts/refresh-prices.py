#!/usr/bin/env python3
"""Refreshes src/price/prices.json from the Python package genai-prices, and checks the result against it.

    scripts/refresh-prices.py --version 0.2.3 --released 2026-11-10 [--as-of 2026-11-20] [--output FILE]

The package is installed into a temporary environment. Its data are rewritten to weir's table: matching rules as plain
lists, rates as decimal strings, rates superseded before --as-of dropped. Then a calculator that reads nothing but the
new table prices thousands of random calls, names and times; each must cost what the package says. Nothing is written
if one does not.
"""

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import venv
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

TABLE = Path(__file__).resolve().parent.parent / "src/price/prices.json"
NOTE = "derived table: current and future rates only, matching rules rewritten, numbers rounded to 12 decimals"
# gen_ai.provider.name, for the providers that have one.
OTEL = {
    "anthropic": "anthropic", "aws": "aws.bedrock", "azure": "azure.ai.openai", "cohere": "cohere",
    "deepseek": "deepseek", "google": "gcp.gemini", "groq": "groq", "mistral": "mistral_ai",
    "moonshotai": "moonshot_ai", "openai": "openai", "openai-decisions": "openai", "perplexity": "perplexity",
    "x-ai": "x_ai",
}
# The package has this rule in its code (ModelInfo.calc_price), not in its data.
MIN_AUDIO_SECONDS = {("groq", "whisper-large-v3"): 10, ("groq", "whisper-large-v3-turbo"): 10}
COMPACT_DATE = re.compile(r"-(20\d\d)(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(?=-|:|$)")


def decimal(value):
    """A rate without an exponent, rounded to 12 decimals."""
    text = format(round(value, 12), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def rate(price):
    if not hasattr(price, "tiers"):
        return decimal(price)
    return {"base": decimal(price.base), "over": [[tier.start, decimal(tier.price)] for tier in price.tiers]}


def rates(price, units):
    """The rates of a ModelPrice by counter, in the order of the units."""
    return {key: rate(value) for key, unit in units.items() if (value := getattr(price, unit.price_key)) is not None}


def regex(pattern):
    """A regular expression without look-around, which weir's engine does not have; text is lower case."""
    pattern = re.sub(r"\[([a-z])([A-Z])\]", lambda m: m[1] if m[1] == m[2].lower() else m[0], pattern)
    if never := re.fullmatch(r"\^\(\?!\.\*(.+)\)", pattern):
        return {"not": regex(never[1])}
    if unless := re.fullmatch(r"\^\(\?!([^()]*)\)(.+)", pattern):
        return {"all": [{"not": regex("^" + unless[1])}, regex("^" + unless[2])]}
    if re.search(r"\(\?[=!<]", pattern):
        sys.exit(f"look-around that is not understood: {pattern}")
    return {"regex": [pattern]}


def matcher(clause):
    """A matching rule: its keys and their values are alternatives."""
    for key, name in (("equals", "eq"), ("starts_with", "prefix"), ("ends_with", "suffix"), ("contains", "contains")):
        if hasattr(clause, key):
            return {name: [getattr(clause, key).lower()]}
    if hasattr(clause, "regex"):
        return regex(clause.regex)
    if hasattr(clause, "and_"):
        return {"all": [matcher(part) for part in clause.and_]}
    merged = {}
    for part in map(matcher, clause.or_):
        for key, value in part.items():
            if key in ("all", "not"):
                if key in merged:
                    sys.exit(f"two alternatives with {key} in one rule: {clause}")
                merged[key] = value
            else:
                merged[key] = list(dict.fromkeys(merged.get(key, []) + value))
    return merged


def condition(constraint):
    if hasattr(constraint, "start_date"):
        return {"from": constraint.start_date.isoformat()}
    if constraint is None:
        return {}
    return {"utc": [constraint.start_time.strftime("%H:%M"), constraint.end_time.strftime("%H:%M")]}


def model(provider, info, units, as_of):
    """A model of the table: its rates on `as_of` and what is to come."""
    def current(price):
        return price.constraint is None or getattr(price.constraint, "start_date", date.max) <= as_of

    base, since, later = info.prices, None, []
    if isinstance(info.prices, list):
        # The last current one is in force, and replaces all before it; without one, the first is.
        at = max((place for place, price in enumerate(info.prices) if current(price)), default=0)
        base, later = info.prices[at].prices, info.prices[at + 1:]
        since = getattr(info.prices[at].constraint, "start_date", None)
    row = {"id": info.id, "match": matcher(info.match)}
    if info.context_window:
        row["ctx"] = info.context_window
    if info.deprecated:
        row["deprecated"] = True
    row["rates"] = rates(base, units)
    if since:
        row["since"] = since.isoformat()
    if later:
        row["overrides"] = [{**condition(it.constraint), "rates": rates(it.prices, units)} for it in later]
    if info.price_variants:
        row["variants"] = [
            {"if": dict(it.when), **condition(it.constraint), "rates": rates(it.prices, units)}
            for it in info.price_variants
        ]
    if seconds := MIN_AUDIO_SECONDS.get((provider.id, info.id)):
        row["min_audio_seconds"] = seconds
    return row


def used_units(providers, all_units):
    """The units that have a rate somewhere, in the package's order."""
    def price_sets(info):
        yield from (it.prices for it in info.prices) if isinstance(info.prices, list) else (info.prices,)
        yield from (it.prices for it in info.price_variants or ())

    keys = {key for p in providers for m in p.models for s in price_sets(m) for key, v in vars(s).items() if v is not None}
    return {name: unit for name, unit in all_units.items() if unit.price_key in keys}


def build(providers, all_units, version, released, as_of):
    units = used_units(providers, all_units)
    table = {
        "schema_version": 1,
        "generated_from": {
            "source": "genai-prices", "version": version, "released": released,
            "project": "https://github.com/pydantic/genai-prices",
            "licence": "MIT, Copyright (c) Pydantic Services Inc. 2025 to present", "note": NOTE,
        },
        "as_of": as_of.isoformat(),
        "currency": "USD",
        "models": sum(len(provider.models) for provider in providers),
        "units": {},
        "providers": [],
    }
    for name, unit in units.items():
        within = [n for n, u in units.items() if n != name and u.dimensions.items() <= unit.dimensions.items()]
        side = unit.dimensions.get("direction")
        table["units"][name] = {"per": unit.per, "within": within, **({"side": side} if side else {})}
    for provider in providers:
        row = {"id": provider.id, "name": provider.name}
        if provider.id in OTEL:
            row["otel"] = OTEL[provider.id]
        row["url"] = f"^(?:{provider.api_pattern})"
        for key in ("provider_match", "model_match"):
            if getattr(provider, key):
                row[key] = matcher(getattr(provider, key))
        if provider.fallback_model_providers:
            row["fallback"] = list(provider.fallback_model_providers)
        row["models"] = [model(provider, info, units, as_of) for info in provider.models]
        table["providers"].append(row)
    return table


def written(table):
    """One model to a line, so that a difference can be read."""
    line = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
    lines = ",\n".join
    providers = (
        line({**provider, "models": []})[:-2] + "\n" + lines(map(line, provider["models"])) + "\n]}"
        for provider in table["providers"]
    )
    units = "{\n" + lines(f"{line(name)}:{line(unit)}" for name, unit in table["units"].items()) + "\n}"
    parts = {"units": units, "providers": "[\n" + lines(providers) + "\n]"}
    return "{\n" + lines(f"{line(key)}:{parts.get(key) or line(value)}" for key, value in table.items()) + "}\n"


# From here to check(): an independent reading of the new table, which knows nothing of the package.


def passes(rule, name):
    tests = {"eq": name.__eq__, "prefix": name.startswith, "suffix": name.endswith, "contains": name.__contains__,
             "regex": lambda pattern: re.search(pattern, name) is not None}
    for key, value in rule.items():
        if key == "all":
            passed = all(passes(part, name) for part in value)
        elif key == "not":
            passed = not passes(value, name)
        else:
            passed = any(map(tests[key], value))
        if passed:
            return True
    return False


def find(table, provider, name):
    """The provider and the model that `provider` means by `name`."""
    def dashed(match):
        try:
            return date(*map(int, match.groups())).strftime("-%Y-%m-%d")
        except ValueError:
            return match[0]

    by_id = {p["id"]: p for p in table["providers"]}
    spellings = dict.fromkeys((name.lower(), COMPACT_DATE.sub(dashed, name.lower())))
    for spelling in spellings:
        for other in (provider["id"], *provider.get("fallback", ())):
            for row in by_id[other]["models"]:
                if passes(row["match"], spelling):
                    return by_id[other], row
    return None


def cost(table, row, own, usage, at, context):
    def active(it):
        start, end = it.get("utc", ("00:00", "24:00"))
        clock = at.strftime("%H:%M")
        in_window = (clock >= start or clock < end) if end < start else start <= clock < end
        return it.get("from", "") <= at.date().isoformat() and in_window

    chosen = next((it["rates"] for it in reversed(row.get("overrides", ())) if active(it)), row["rates"])
    for it in reversed(row.get("variants", ()) if own else ()):
        if active(it) and it["if"].items() <= context.items():
            chosen = {**chosen, **it["rates"]}
    seconds = max(usage["audio_seconds"], row.get("min_audio_seconds", 0))
    counts = {**usage, "requests": 1, "audio_seconds": seconds, "input_audio_seconds": seconds}
    leaves, total = {}, Decimal(0)
    for unit in sorted(chosen, key=lambda unit: -len(table["units"][unit]["within"])):
        inside = sum(count for part, count in leaves.items() if unit in table["units"][part]["within"])
        leaves[unit] = counts.get(unit, 0) - inside
        price = chosen[unit]
        if isinstance(price, dict):
            exceeded = [tier for start, tier in price["over"] if usage.get("input_tokens", 0) > start]
            price = exceeded[-1] if exceeded else price["base"]
        total += Decimal(price) * leaves[unit] / table["units"][unit]["per"]
    return total


def random_usage(table, row, rng):
    """Counts of which no part exceeds its whole, around the thresholds of the model's tiers."""
    starts = [start for price in row["rates"].values() if isinstance(price, dict) for start, _ in price["over"]]
    size = rng.choice([*(start + rng.randint(-1, 1) for start in starts), rng.randint(0, 2_000_000)])
    usage = {"input_tokens": size, "output_tokens": rng.randint(0, 200_000), "audio_seconds": rng.choice([3, 900])}
    usage["input_audio_seconds"] = usage["audio_seconds"]
    for unit, facts in table["units"].items():
        if unit not in usage and unit != "requests":
            # A tenth of the smallest container: all parts of one whole together stay below it.
            whole = min((usage[container] for container in facts["within"] if container in usage), default=1000)
            usage[unit] = rng.randint(0, whole // 10)
    return usage


def check(table, calc_price, usage_type, as_of):
    """Compares the table with the package; returns the number of comparisons."""
    rng = random.Random(table["generated_from"]["version"])
    contexts = [{}] + [v["if"] for p in table["providers"] for m in p["models"] for v in m.get("variants", ())]
    names = [(p, name) for p in table["providers"] for m in p["models"]
             for name in (m["id"], *m["match"].get("eq", ()), *m["match"].get("prefix", ()))]
    tries = names + rng.choices(names, k=10_000)
    midnight = datetime.combine(as_of, datetime.min.time(), UTC)
    differences = []
    for provider, name in tries:
        name = rng.choice([name, name, name.upper(), "us." + name]) + rng.choice(["", "", "-20250807", "-2025-08-07", "-x"])
        provider = rng.choice([provider, provider, provider, rng.choice(table["providers"])])
        at = midnight + timedelta(minutes=rng.randint(0, 120 * 24 * 60))
        context = rng.choice(contexts)
        found = find(table, provider, name)
        usage = random_usage(table, found[1] if found else {"rates": {}}, rng)
        try:
            theirs = calc_price(usage_type(**usage), name, provider_id=provider["id"], genai_request_timestamp=at,
                                price_context=context)
            theirs = (theirs.model.id, theirs.total_price)
        except LookupError:
            theirs = None
        ours = found and (found[1]["id"], cost(table, found[1], found[0] is provider, usage, at, context))
        agree = ours == theirs or ours and theirs and ours[0] == theirs[0] and abs(ours[1] - theirs[1]) < Decimal("1e-9")
        if not agree:
            differences.append(f"{provider['id']} {name} {at} {context}: {ours}, the package says {theirs}")
    if differences:
        sys.exit("\n".join(differences[:20]) + f"\n{len(differences)} differences: nothing written")
    return len(tries)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--version", required=True, help="the version of genai-prices to take")
    parser.add_argument("--released", required=True, type=date.fromisoformat, help="the day it was released")
    parser.add_argument("--as-of", type=date.fromisoformat, default=datetime.now(UTC).date(), help="today, by default")
    parser.add_argument("--output", type=Path, default=TABLE)
    return parser.parse_args()


def in_environment(version):
    """Runs this script again where the package is installed."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = Path(folder, "bin", "python")
        subprocess.run([python, "-m", "pip", "install", "--quiet", f"genai-prices=={version}"], check=True)
        again = subprocess.run([python, __file__, *sys.argv[1:]], env={**os.environ, "REFRESH_PRICES": "1"}, check=False)
        sys.exit(again.returncode)


def main():
    options = arguments()
    if "REFRESH_PRICES" not in os.environ:
        in_environment(options.version)
    from genai_prices import Usage, calc_price
    from genai_prices.data import providers
    from genai_prices.units import _get_registry

    table = build(providers, _get_registry().units, options.version, options.released.isoformat(), options.as_of)
    checked = check(table, calc_price, Usage, options.as_of)
    options.output.write_text(written(table), encoding="utf-8")
    print(f"{options.output}: {table['models']} models, {checked} comparisons agree")


if __name__ == "__main__":
    main()
