#!/usr/bin/env python3
"""weir's dashboards: what each page asks, and how it shows the answer. `make dashboards` writes them to dashboards/.

Selectors begin with a letter for the matchers that the page's variables choose (panels.py has them in full): `{S}` what an
instance exposes, `{P}` the same of the chosen providers, `{M}` of the chosen models too, `{G}` of providers as `gen_ai_*`
spells them, `{J}` what recording rules made, which has no instance. Rates are over `$__rate_interval`, totals of the page are
`increase` over `$__range`, and bars are `increase` over `$__interval`.
"""

import json
import pathlib

from panels import (
    BLUE, FAILING, FILLING, GREEN, HOLDS, LOKI, NEVER, ORANGE, RED, TEMPO, YELLOW,
    annotation, bars, by_name, colored, dashboard, datasource, drill_down, each, firing, gauge, heatmap, lines, mapped, now,
    panel, per_hour, pie, q, quantile, quantiles, rate, row, stat, table, text, total, traces, variable,
)  # fmt: skip

FOLDER = pathlib.Path(__file__).parent / "dashboards"

# Calls that failed for a reason that is not the app's: what the error budget counts.
FAILED = 'outcome=~"upstream_error|timeout|internal_error"'
# What a budget has spent for the whole app: what every instance says, or the sum of what each says of itself.
BUDGET = "namespace, job, budget, window"
SPENT = (
    f'(max by ({BUDGET}) (weir_budget_spent_usd{{S, scope="app"}})'
    f' or sum by ({BUDGET}) (weir_budget_spent_usd{{S, scope="instance"}}))'
)
LIMIT = f"max by ({BUDGET}) (weir_budget_limit_usd{{S}})"
SPENT_TOKENS = SPENT.replace("_usd", "_tokens")
LIMIT_TOKENS = LIMIT.replace("_usd", "_tokens")
# Of budgets by the month only.
MONTH_SPENT = SPENT.replace("{S,", '{S, window="month",')
MONTH_LIMIT = LIMIT.replace("{S}", '{S, window="month"}')
# The expected spend at the month's end, if it goes on as in the last one or three days.
AT_1D = f'job_budget:weir_budget_projected_per_limit:ratio_rate1d{{J, window="month"}} * {MONTH_LIMIT}'
AT_3D = f'job_budget:weir_budget_projected_per_limit:ratio_rate3d{{J, window="month"}} * {MONTH_LIMIT}'
# Days are added up that are left, each as far from the mean as days of the last week were: twice their standard deviation
# times the square root of their number. Of budgets of any window, so that a month's budget has to be picked.
MARGIN = (
    "2 * stddev_over_time(sum by (namespace, job, budget) (increase(weir_budget_charged_usd_total{S}[1d]))[7d:1d])"
    " * on (namespace, job, budget) group_right ()"
    f' sqrt(clamp_min(max by ({BUDGET}) (weir_budget_window_end_timestamp_seconds{{S, window="month"}}) - time(), 0) / 86400)'
)
# Series of weir's own process, beside those of an app that is scraped under the same job.
WEIRS = "and on (namespace, job, instance) weir_build_info{S}"

# Columns of tables.
USD = ("currencyUSD", {"decimals": 2})
CENTS = ("currencyUSD", {"decimals": 4})
COUNT = ("short", {"decimals": 0})
SHARE = ("percentunit", {"decimals": 1})
SECONDS = ("s", {"decimals": 2})
OUTCOMES = colored(success=GREEN, timeout=YELLOW, upstream_error=RED, internal_error=RED, client_error=ORANGE)
RESULTS = colored(hit=GREEN, miss=ORANGE, expired=YELLOW, bypass=BLUE)
YES = mapped((0, 0.5, "no", RED), (0.5, 1.5, "yes", GREEN))
TREND = mapped((-1e9, -0.05, "▼", BLUE), (-0.05, 0.05, "▶", GREEN), (0.05, 1e9, "▲", ORANGE))


def change(total):
    """How much more a total is than in the range before this one."""
    return f"{total} / ({total.replace('[$__range]', '[$__range] offset $__range')} > 0) - 1"


def share(part, whole):
    """One as a part of the other; nothing, rather than a division by zero, where there is nothing."""
    return f"{part} / ({whole} > 0)"


def overview():
    kpis = [
        stat("Calls per second", "Calls from the app that ended, whoever answered them.", "reqps",
             q(rate("weir_requests_total{S}"))),
        stat("Success", "Share of calls that ended well for the app.", "percentunit",
             share(total('weir_requests_total{S, outcome="success"}'), total("weir_requests_total{S}")),
             steps=[(None, RED), (0.95, YELLOW), (0.99, GREEN)], decimals=2),
        stat("Spend", "What providers charged in this time range.", "currencyUSD",
             total("weir_cost_usd_total{S}"), width=3, decimals=2, links=[drill_down("Cost", "weir-cost")]),
        stat("Saved", "What answers from the cache and from equal calls in flight would have cost.", "currencyUSD",
             total("weir_cost_saved_usd_total{S}"), width=3, decimals=2, steps=[(None, GREEN)],
             links=[drill_down("Cache", "weir-cache")]),
        gauge("Budget used", "The fullest budget, in its current window.", "percentunit",
              "max(job_budget:weir_budget_spent_per_limit:ratio{J})", width=3, steps=FILLING),
        stat("Hit ratio", "Share of look-ups that the cache answered.", "percentunit",
             share(total('weir_cache_requests_total{S, result="hit"}'),
                   total('weir_cache_requests_total{S, result!="bypass"}')),
             width=3, decimals=1, links=[drill_down("Cache", "weir-cache")]),
        stat("p95", "95 of 100 calls were faster, hits included.", "s",
             q(quantile(0.95, "weir_request_duration_seconds_bucket{S}")),
             decimals=2, links=[drill_down("Performance", "weir-performance")]),
    ]
    traffic = [
        lines("Calls by outcome", "Refusals by limits and budgets are outcomes too.", "reqps",
              q(rate("weir_requests_total{S}", "outcome"), "{{outcome}}"), width=8, stack=True,
              overrides=OUTCOMES, links=[drill_down("Performance", "weir-performance")]),
        lines("Cost per hour by model", "At the pace of the moment.", "currencyUSD",
              q(per_hour("weir_cost_usd_total{S}", "model"), "{{model}}"), width=8, stack=True, decimals=2,
              links=[drill_down("Cost of this model", "weir-cost", model="model")]),
        firing("Firing alerts", "weir's alerts that fire or are about to."),
        lines("Latency", "Of calls, from request head to last byte; a dot is a call with a trace.", "s",
              quantiles("weir_request_duration_seconds_bucket{S}")),
        lines("Refused calls", "By limits (rate_limited) and by budgets (budget_blocked).", "reqps",
              q(rate('weir_requests_total{S, outcome=~"rate_limited|budget_blocked"}', "outcome"),
                "{{outcome}}"), none="0", links=[drill_down("weir itself", "weir-sidecar")]),
        table("Apps", "Every app that is chosen above: in this time range, in a day, and now.", {
            "Calls": (total("weir_requests_total{S}", "namespace, job"), *COUNT),
            "Errors": (share(total(f"weir_requests_total{{S, {FAILED}}}", "namespace, job"),
                             total("weir_requests_total{S}", "namespace, job")), *SHARE),
            "Spend": (total("weir_cost_usd_total{S}", "namespace, job"), *USD),
            "Saved": (total("weir_cost_saved_usd_total{S}", "namespace, job"), *USD),
            "Budget used": ("max by (namespace, job) (job_budget:weir_budget_spent_per_limit:ratio{J})", *SHARE),
            "Spend per hour": ("3600 * job:weir_cost_usd:rate5m{J}", *USD),
            "Saved in a day": ("job:weir_cost_saved_usd:increase1d{J}", *USD),
            "Calls per second": ("job:weir_requests:rate5m{J}", "reqps", {"decimals": 2}),
            "p50": ("job:weir_request_duration_seconds:p50_5m{J}", *SECONDS),
            "p95": ("job:weir_request_duration_seconds:p95_5m{J}", *SECONDS),
            "Instances": ("count by (namespace, job) (weir_build_info{S})", "short"),
        }, sort="Spend"),
    ]  # fmt: skip
    return page("overview", "Overview", "One page for every app behind weir: traffic, money, cache and alerts.",
                [row("Now", kpis), row("Traffic", traffic)])  # fmt: skip


def cost():
    spend, calls = total("weir_cost_usd_total{M}"), total("weir_request_cost_usd_count{M}")
    kpis = [
        stat("Total spend", "What providers charged in this time range.", "currencyUSD", spend, decimals=2),
        stat("Change", "Against the range before this one.", "percentunit", change(spend), decimals=1, none="new",
             steps=[(None, GREEN), (0.2, YELLOW), (0.5, RED)]),
        stat("Average cost per call", "Of calls that a provider charged for.", "currencyUSD", share(spend, calls),
             decimals=4),
        stat("Saved", "By the cache, by equal calls in flight, by similar requests.", "currencyUSD",
             total("weir_cost_saved_usd_total{M}"), decimals=2, steps=[(None, GREEN)]),
        stat("Month's budget left", "Of the budget by the month that has least left.", "currencyUSD",
             f"min(clamp_min({MONTH_LIMIT} - {MONTH_SPENT}, 0))", decimals=2, none="no budget"),
        stat("Projected month", "What the dearest budget by the month comes to at the pace of the last day.",
             "currencyUSD",
             f"max({AT_1D})", decimals=2, none="no budget"),
    ]  # fmt: skip
    where = [
        lines("Cost by model", "Each bar is what an hour cost, or less where the page is short.", "currencyUSD",
              q(each("weir_cost_usd_total{M}", "model"), "{{model}}"), width=16, stack=True, bars=True,
              decimals=2, interval="1h", links=[drill_down("Performance of this model", "weir-performance", model="model")]),
        pie("Cost by token class", "Disjoint classes: their sum is the bill. `fee` is what is not billed by token.",
            "currencyUSD",
            now(total("weir_cost_usd_total{M}", "token_type"), "{{token_type}}"), decimals=2),
        bars("Cost by provider and model", "In this time range, the dearest first.", "currencyUSD",
             now(f"sort_desc({total('weir_cost_usd_total{M}', 'provider, model')})", "{{provider}} · {{model}}"),
             decimals=2, min=0),
        lines("Cost per call", "p50 and p95 by model; a dot is a call with a trace.", "currencyUSD", [
            q(quantile(0.95, "weir_request_cost_usd_bucket{M}", "model"),
              "p95 {{model}}", exemplar=True),
            q(quantile(0.50, "weir_request_cost_usd_bucket{M}", "model"),
              "p50 {{model}}"),
        ], decimals=4, links=[traces("Traces of this model", 'span.gen_ai.request.model="${__field.labels.model}"')]),
        compared_models(),
    ]  # fmt: skip
    budgets = [
        bars("Budgets", "Spent of each budget, in its current window.", "percentunit",
             now("max by (budget, window) (job_budget:weir_budget_spent_per_limit:ratio{J})", "{{budget}} ({{window}})"),
             width=8, min=0, max=1, steps=FILLING, none="no budget"),
        table("Budgets in US dollars", "Of the whole app: what every instance says (scope app), or the sum over instances.", {
            "Limit": (LIMIT, *USD),
            "Spent": (SPENT, *USD),
            "Left": (f"clamp_min({LIMIT} - {SPENT}, 0)", *USD),
            "Least left to anybody": (f"min by ({BUDGET}) (weir_budget_remaining_usd{{S}})", *USD),
            "Reserved": (f"sum by ({BUDGET}) (weir_budget_reserved_usd{{S}})", *CENTS),
            "Began": (f"max by ({BUDGET}) (weir_budget_window_start_timestamp_seconds{{S}}) * 1000", "dateTimeAsLocal"),
            "Ends": (f"max by ({BUDGET}) (weir_budget_window_end_timestamp_seconds{{S}}) * 1000", "dateTimeAsLocal"),
        }, width=16, unit="currencyUSD"),
        lines("Forecast of the month", "Where budgets by the month end: at the pace of three days (expected), of one day, and "
              "between low and high in 95 of 100 months whose days differ as those of the last week did. The band takes a week.",
              "currencyUSD", [
                  q(f"max by (budget) ({MONTH_LIMIT})", "limit {{budget}}"),
                  q(f"max by (budget) ({MONTH_SPENT})", "spent {{budget}}"),
                  q(f"max by (budget) ({AT_3D})", "expected {{budget}}"),
                  q(f"max by (budget) ({AT_1D})", "at one day's pace {{budget}}"),
                  q(f"max by (budget) (clamp_min({AT_3D} - on ({BUDGET}) ({MARGIN}), 0))", "low {{budget}}"),
                  q(f"max by (budget) ({AT_3D} + on ({BUDGET}) ({MARGIN}))", "high {{budget}}"),
              ], width=16, decimals=2, overrides=[
                  {"matcher": {"id": "byRegexp", "options": "/^(limit) /"}, "properties": [
                      {"id": "color", "value": {"mode": "fixed", "fixedColor": RED}},
                      {"id": "custom.lineStyle", "value": {"fill": "dash", "dash": [10, 10]}}]},
                  {"matcher": {"id": "byRegexp", "options": "/^(low|high) /"}, "properties": [
                      {"id": "color", "value": {"mode": "fixed", "fixedColor": BLUE}},
                      {"id": "custom.lineStyle", "value": {"fill": "dot", "dash": [2, 6]}}]},
              ]),
        table("Budgets of tokens", "The same for budgets that count tokens.", {
            "Limit": (LIMIT_TOKENS, "short"),
            "Used": (SPENT_TOKENS, "short"),
            "Least left to anybody": (f"min by ({BUDGET}) (weir_budget_remaining_tokens{{S}})", "short"),
        }, width=8),
        lines("What budgets did", "Calls refused, calls made with a cheaper model, streams ended early.", "short", [
            q(each("weir_budget_blocked_requests_total{S}", "budget"), "refused by {{budget}}"),
            q(each("weir_budget_downgraded_requests_total{S}", "budget"), "downgraded by {{budget}}"),
            q(each("weir_budget_stopped_streams_total{S}", "budget"), "streams ended by {{budget}}"),
        ], bars=True, none="0", interval="2m"),
        lines("Charged per hour by budget", "What calls were charged to, whatever the window.", "currencyUSD", [
            q(per_hour("weir_budget_charged_usd_total{S}", "budget"), "{{budget}}"),
        ], width=6, decimals=2),
        lines("Tokens charged by budget", "The same in tokens.", "cps", [
            q(rate("weir_budget_charged_tokens_total{S}", "budget"), "{{budget}}"),
        ], width=6),
        stat("Subjects of budgets", "Of budgets with `per`: how many have spent something in the current window.",
             "short",
             now("sum by (budget) (weir_budget_subjects{S})", "{{budget}}"), width=8, none="0"),
        stat("A month at today's pace", "Spend of the last day times the days of this month: needs no budget.",
             "currencyUSD",
             "sum(job:weir_cost_usd:increase1d{J}) * scalar(days_in_month())", width=4, decimals=2),
        text("Change a budget", "Budgets are configuration; the month's limit can be changed while weir runs.",
             "```yaml\nbudgets:\n  - name: app\n    limit_usd: 1000\n    window: month\n    enforce: alert   # or block, "
             "downgrade\n```\n"
             "`weir budget set 1500` changes the month's limit while weir runs, `weir budget override app --for 2h` lets calls "
             "pass for a while.", height=4),
    ]  # fmt: skip
    unusual = [
        lines("Spend of the hour, against the same hour of seven days", "Above the upper band is unusual: the median and 3.5 "
              "times the spread of this hour in the last seven days.", "currencyUSD", [
                  q("job:weir_cost_usd:increase1h{J}", "spend {{job}}"),
                  q("job:weir_cost_usd_same_hour:median7d{J}", "median {{job}}"),
                  q("job:weir_cost_usd_same_hour:median7d{J}"
                    " + 3.5 * clamp_min(1.4826 * job:weir_cost_usd_same_hour:mad7d{J}, 0.05)", "upper band {{job}}"),
              ], decimals=2),
        lines("How unusual", "Robust: above 3.5 an alert fires. By mean and standard deviation: above 3.", "none", [
            q("job:weir_cost_usd:robust_zscore7d{J}", "robust {{job}}"),
            q("job:weir_cost_usd:zscore7d{J}", "by mean {{job}}"),
        ], decimals=1, min=None),
    ]  # fmt: skip
    trust = [
        stat("Exact share", "Of billable calls: the provider said the cost, or reported usage that the table prices.",
             "percentunit",
             now("min by (provider) (weir_cost_capture_ratio{P})", "{{provider}}"), width=8, height=6, decimals=1,
             steps=[(None, RED), (0.9, YELLOW), (0.99, GREEN)], none="nothing billable yet"),
        lines("Cost by where it comes from", "Stated by the provider, priced from reported usage, or estimated.",
              "currencyUSD",
              q(per_hour("weir_cost_by_provenance_usd_total{P}", "provenance"), "{{provenance}} per hour"), width=8,
              height=6, stack=True, decimals=2),
        lines("Calls by where their cost comes from", "`unpriced` are billable calls whose cost is not known.", "reqps",
              q(rate("weir_billable_requests_total{P}", "provenance"), "{{provenance}}"),
              width=8, height=6, stack=True),
        lines("Drift", "How far what providers state is over or under what the price table says.", "currencyUSD",
              q(each("weir_cost_drift_usd_total{P}", "provider, direction"), "{{provider}} {{direction}}"),
              width=8, height=6, bars=True, decimals=4, none="0", interval="2m"),
        lines("Estimated calls", "Calls whose provider did not say what they used.", "short",
              q(each("weir_usage_estimated_total{P}", "provider"), "{{provider}}"),
              width=8, height=6, bars=True, none="0", interval="2m"),
        table("Unpriced calls", "Not counted as spend, and not limited: put these models into the price table.", {
            "Calls": (total("weir_unpriced_requests_total{P}", "provider, reason") + " > 0", *COUNT),
        }, width=8, height=6, none="none"),
        table("Models without a price", "When each was last asked.", {
            "Last seen": ("max by (provider, model, reason) (weir_unpriced_last_seen_timestamp_seconds{M}) * 1000",
                          "dateTimeAsLocal"),
        }, width=16, height=6, none="none"),
        stat("Age of the price table", "Since it was published. A newer one comes with a newer weir, or in an overlay.",
             "s",
             "time() - min(weir_price_table_timestamp_seconds{S})", width=4, height=6,
             steps=[(None, GREEN), (60 * 86400, YELLOW), (90 * 86400, RED)]),
        stat("Price table", "Version and origin.", "short", now("count by (version, source) (weir_price_table_info{S})",
             "{{version}} ({{source}})"), width=4, height=6, text="name"),
    ]  # fmt: skip
    return page("cost", "Cost", "What calls cost, where it goes, what budgets allow, what the month comes to, and how far the "
                "numbers can be trusted.",
                [row("Spend", kpis), row("Where it goes", where), row("Budgets and forecast", budgets), row("Unusual spend", unusual),
                 row("How exact this is", trust)], models=True, traced=True)  # fmt: skip


def compared_models():
    """One line for each model, its columns from both families of metrics."""
    paid = total("weir_request_cost_usd_count{M}", "provider, model")
    spent = total("weir_cost_usd_total{M}", "provider, model")
    asked = total("weir_requests_total{M}", "provider, model")

    def p95(histogram):
        """By `provider` and `model`, which the conventions call otherwise."""
        rates = f"increase({histogram}_bucket{{G}}[$__range])"
        for ours, theirs in (("provider", "gen_ai_provider_name"), ("model", "gen_ai_request_model")):
            rates = f'label_replace({rates}, "{ours}", "$1", "{theirs}", "(.+)")'
        return f"histogram_quantile(0.95, sum by (provider, model, le) ({rates})) >= 0"

    return table("Models side by side", "Latency is that of the provider, by the name that was asked for; where the price table "
                 "knows the model by another name, that is a line of its own.", {
                     "Calls": (asked, *COUNT),
                     "Cost per 1,000 calls": (share(f"1000 * {spent}", paid), *USD),
                     "Cost per call": (share(spent, paid), *CENTS),
                     "p95": (p95("gen_ai_client_operation_duration_seconds"), *SECONDS),
                     "First token p95": (p95("gen_ai_server_time_to_first_token_seconds"), *SECONDS),
                     "Error rate": (share(total(f"weir_requests_total{{M, {FAILED}}}", "provider, model"), asked), *SHARE),
                     "Tokens per call": (share(total("weir_tokens_total{M}", "provider, model"), paid), *COUNT),
                 }, sort="Cost per 1,000 calls", links=[])  # fmt: skip


def usage():
    calls = total("weir_requests_total{M}")
    named = 'weir_consumer_requests_total{S, consumer!~"other|none"}'
    users = f"count({total(named, 'consumer')} > 0)"
    acting = 'weir_agent_requests_total{S, agent!="none"}'
    agents = f"count({total(acting, 'agent')} > 0)"
    per_user = f"{total(named)} / {users}"
    totals = [
        ("Total calls", "Calls from the app, whoever answered them.", calls, "0"),
        ("Users", "Who asked, by `X-User-ID`.", users, "not counted"),
        ("Agents", "Who asked, by `X-Agent-ID`.", agents, "0"),
        ("Calls per user", "Of users who asked at all.", per_user, "not counted"),
    ]
    kpis = [stat(title, words, "short", total, width=6, none=none, decimals=0) for title, words, total, none in totals] + [
        stat(f"{title}: change", "Against the range before this one.", "percentunit", change(total), width=6, none="new",
             decimals=1)
        for title, _, total, _ in totals
    ]  # fmt: skip
    asked = total("weir_consumer_requests_total{S}", "consumer")
    who = [
        lines("Calls over time", "Each bar is one interval.", "short",
              q(each("weir_requests_total{M}"), "calls"), bars=True, interval="2m", none="0"),
        lines("Calls by operation", "Chats, embeddings and so on; `other` is passed through unread.", "reqps",
              q(rate("weir_requests_total{M}", "operation"), "{{operation}}"), stack=True),
        pie("Agents", "Share of calls.", "short", now(total("weir_agent_requests_total{S}", "agent"), "{{agent}}")),
        table("Agents by cost", "What each agent asks, uses and spends in this time range.", {
            "Calls": (total("weir_agent_requests_total{S}", "agent"), *COUNT),
            "Tokens": (total("weir_agent_tokens_total{S}", "agent"), *COUNT),
            "Cost": (total("weir_agent_cost_usd_total{S}", "agent"), *CENTS),
        }, width=16, sort="Cost"),
        table("Top 10 users", "By calls, with the change against the range before this one. Off unless "
              "`telemetry.metrics.consumers` is set: it puts user ids into Prometheus.", {
                  "Calls": (f"topk(10, {asked})", *COUNT),
                  "Cost": (total("weir_consumer_cost_usd_total{S}", "consumer"), *CENTS),
                  "Change": (change(asked), *SHARE),
                  "Trend": (change(asked), "none", {"mappings": TREND, "custom.cellOptions": {"type": "color-text"}}),
              }, sort="Calls", none="not counted"),
    ]  # fmt: skip
    tokens = [
        lines("Tokens per second by class", "As billed. Classes are disjoint.", "cps",
              q(rate("weir_tokens_total{M}", "token_type"), "{{token_type}}"), stack=True),
        bars("Tokens by model", "In this time range.", "short",
             now(f"sort_desc({total('weir_tokens_total{M}', 'model')})", "{{model}}"), min=0, decimals=0),
        lines("Tokens saved", "Not bought because an answer was there already.", "short",
              q(each("weir_tokens_saved_total{M}", "source"), "{{source}}"), bars=True, stack=True,
              interval="2m", none="0"),
        lines("Tokens per operation", "p95 of what one operation takes in and gives out, cached input and reasoning included.",
              "short",
              q(quantile(0.95, "gen_ai_client_token_usage_bucket{G}", "gen_ai_token_type"),
                "{{gen_ai_token_type}}"), decimals=0),
        lines("Bytes", "Bodies exchanged with the app.", "Bps",
              q(rate("weir_http_bytes_total{S}", "direction"), "{{direction}}")),
        panel("timeseries", "The app's own metrics", "What the app pushes to weir, `app_…`; empty unless it does.",
              "short",
              q('sum by (__name__, job) ({S, __name__=~"app_.+"})', "{{__name__}}"), 12, color="palette-classic",
              options={"legend": {"displayMode": "table", "placement": "bottom", "showLegend": True, "calcs": ["lastNotNull"]},
                       "tooltip": {"mode": "multi", "sort": "desc"}}, none="none pushed"),
    ]  # fmt: skip
    return page("usage", "Usage", "Who asks what, how often, and how many tokens that takes.",
                [row("Totals", kpis), row("Who asks", who), row("Tokens", tokens)], models=True, since="now-24h")  # fmt: skip


def performance():
    duration = "weir_request_duration_seconds"
    kpis = [
        stat(f"p{n}", f"{n} of 100 calls were faster, hits included.", "s",
             f"histogram_quantile(0.{n}, sum by (le) (increase({duration}_bucket{{P}}[$__range])))", width=3, decimals=2)
        for n in (50, 95, 99)
    ] + [
        stat("Average", "Of all calls, hits included.", "s",
             share(total(f"{duration}_sum{{P}}"), total(f"{duration}_count{{P}}")), width=3, decimals=2),
        stat("Error rate", "Calls that failed for a reason that is not the app's.", "percentunit",
             share(total(f"weir_requests_total{{M, {FAILED}}}"), total("weir_requests_total{M}")),
             width=3, decimals=2, steps=FAILING, none="0"),
        stat("Success", "Share of calls that ended well for the app.", "percentunit",
             share(total('weir_requests_total{M, outcome="success"}'), total("weir_requests_total{M}")),
             width=3, decimals=2, steps=[(None, RED), (0.95, YELLOW), (0.99, GREEN)]),
        stat("Calls per second", "Calls that ended.", "reqps", q(rate("weir_requests_total{M}")), width=3),
        stat("In flight", "Calls in progress.", "short", "sum(weir_requests_in_flight{P})", width=3, none="0"),
    ]  # fmt: skip
    app = [
        lines("Percentiles", "Request head to last byte, hits included; a dot is a call with a trace.", "s",
              quantiles(f"{duration}_bucket{{P}}"), links=[traces("Traces")]),
        lines("Throughput by status", "How calls ended for the app.", "reqps",
              q(rate("weir_requests_total{M}", "outcome"), "{{outcome}}"), stack=True, overrides=OUTCOMES),
        heatmap("Latency", "How many calls took how long.", "s",
                f"sum by (le) (increase({duration}_bucket{{P}}[$__rate_interval]))"),
        lines("p95 by part of the cache", "Hits, misses, answers of equal calls in flight, and what passes the cache by.",
              "s",
              q(quantile(0.95, f"{duration}_bucket{{P}}", "cache"), "{{cache}}")),
        table("Errors", "What went wrong upstream, by error type. A click leads to the traces, which say more.", {
            "Errors": (total('gen_ai_client_operation_duration_seconds_count{G, error_type!=""}',
                             "gen_ai_provider_name, gen_ai_request_model, error_type") + " > 0", *COUNT),
        }, none="no errors", sort="Errors",
            rename={"gen_ai_provider_name": "Provider", "gen_ai_request_model": "Model", "error_type": "Type"},
            overrides=[by_name("Type", {
                "custom.cellOptions": {"type": "color-background"},
                "links": [traces("Traces of this error", 'span.gen_ai.request.model="${__data.fields.Model}"',
                                 'span.error.type="${__data.fields.Type}"')],
            })]),
    ]  # fmt: skip
    providers = [
        lines("p95 by model", "The provider's part: request handed upstream to last byte.", "s",
              q(quantile(0.95, "gen_ai_client_operation_duration_seconds_bucket{G}", "gen_ai_request_model"),
                "{{gen_ai_request_model}}", exemplar=True),
              links=[traces("Traces of this model", 'span.gen_ai.request.model="${__field.labels.gen_ai_request_model}"')]),
        lines("p95 against its weekly median", "Above twice the median an alert fires.", "s", [
            q("job_provider_model:weir_upstream_duration_seconds:p95_15m{J}", "{{model}}"),
            q("job_provider_model:weir_upstream_duration_seconds:p95_median7d{J}", "median of the week {{model}}"),
        ]),
        lines("Attempts by code", "What providers answered: an HTTP status, `error` or `timeout`.", "reqps",
              q(rate("weir_upstream_requests_total{P}", "provider, code") + " > 0", "{{provider}} {{code}}"),
              width=8, stack=True),
        lines("Retries", "Attempts that were retries, by what the one before met; `app`: those of the app's SDK.", "reqps",
              q(rate("weir_upstream_retries_total{P}", "provider, reason") + " > 0", "{{provider}} {{reason}}"),
              width=8, stack=True, none="0"),
        lines("Moved to a fallback", "Calls that went another way to the same API, and which.", "reqps",
              q(rate("weir_upstream_fallbacks_total{P}", "provider, to_provider"), "{{provider}} to {{to_provider}}"),
              width=8, none="0"),
        lines("Circuits", "1: calls go there. 0: it has failed too often, and is left alone.", "short",
              q("min by (provider) (weir_upstream_up{S})", "{{provider}}"), width=8, max=1, none="no breakers"),
        lines("Quota left", "What providers say is left of their own limits, by the latest answer.", "percentunit",
              q("min by (provider, kind) (weir_upstream_ratelimit_remaining{P} / (weir_upstream_ratelimit_limit{P} > 0))",
                "{{provider}} {{kind}}"), width=8, max=1, none="no provider says"),
        lines("Open connections", "To each provider.", "short",
              q("sum by (provider) (weir_upstream_connections{P})", "{{provider}}"), width=8, none="0"),
        lines("Connecting p95", "DNS, TCP and TLS of new connections.", "s",
              q(quantile(0.95, "weir_upstream_connect_duration_seconds_bucket{P}", "provider"),
                "{{provider}}"), width=8),
        lines("In flight by provider", "Calls in progress.", "short",
              q("sum by (provider) (weir_requests_in_flight{P})", "{{provider}}"), width=8, none="0"),
    ]  # fmt: skip
    streaming = [
        lines("First token p95 by model", "Request handed upstream to first content, reasoning or tool delta.", "s",
              q(quantile(0.95, "gen_ai_server_time_to_first_token_seconds_bucket{G}", "gen_ai_request_model"),
                "{{gen_ai_request_model}}"),
              links=[traces("Traces of this model", 'span.gen_ai.request.model="${__field.labels.gen_ai_request_model}"')]),
        lines("Output tokens per second", "Median of streams, after the first token.", "cps",
              q("1 / " + quantile(0.5, "gen_ai_server_time_per_output_token_seconds_bucket{G}", "gen_ai_request_model"),
                "{{gen_ai_request_model}}")),
    ]  # fmt: skip
    overhead = [
        lines("What weir adds", "On the way in and on the way back; waiting for the provider excluded.", "s", [
            q(quantile(0.99, "weir_proxy_overhead_seconds_bucket{S}", "phase"), "p99 {{phase}}"),
            q(quantile(0.50, "weir_proxy_overhead_seconds_bucket{S}", "phase"), "p50 {{phase}}"),
        ]),
        lines("Error budget burnt", "How many times faster than a success of 99 % allows. 14.4 wakes somebody.", "none", [
            q("job:weir_errors_per_request:ratio_rate5m{J} / 0.01", "5 minutes {{job}}"),
            q("job:weir_errors_per_request:ratio_rate1h{J} / 0.01", "1 hour {{job}}"),
            q("job:weir_errors_per_request:ratio_rate6h{J} / 0.01", "6 hours {{job}}"),
        ], decimals=1),
    ]  # fmt: skip
    seen = [
        text("Traces and logs", "What this row needs.", "Needs a **Tempo** and a **Loki** data source, chosen above: weir sends "
             "traces by OTLP (`telemetry.traces`), and logs a line of JSON for each call (`telemetry.log`). Without them, leave "
             "the row closed.", width=24, height=3),
        panel("table", "Calls that failed", "Spans with an error, the newest first.", "short",
              {"queryType": "traceql", "query": '{resource.service.name=~"$job" && status=error}', "limit": 20,
               "tableType": "spans"}, 12, 9, datasource=TEMPO),
        panel("table", "Slow calls", "Calls of more than ten seconds.", "short",
              {"queryType": "traceql", "query": '{resource.service.name=~"$job" && span.gen_ai.operation.name!="" && duration>10s}',
               "limit": 20, "tableType": "spans"}, 12, 9, datasource=TEMPO),
        panel("logs", "Log of calls that did not go well", "One line for each, without prompts and answers.", "short",
              {"queryType": "range", "expr": '{namespace=~"$namespace", container="weir"} | json'
                                             ' | weir_outcome!="" | weir_outcome!="success"'},
              24, 10, datasource=LOKI,
              options={"showTime": True, "wrapLogMessage": True, "enableLogDetails": True, "sortOrder": "Descending",
                       "dedupStrategy": "none"}),
    ]  # fmt: skip
    return page("performance", "Performance", "How fast and how well calls are answered, by providers and by weir.",
                [row("Calls", kpis), row("What the app sees", app), row("Providers", providers), row("Streaming", streaming),
                 row("weir's own part", overhead), row("Traces and logs", seen, collapsed=True)],
                models=True, traced=True, logged=True, refresh="30s")  # fmt: skip


def cache():
    hits, looked_up = 'weir_cache_requests_total{M, result="hit"}', 'weir_cache_requests_total{M, result!="bypass"}'
    by_namespace = "weir_cache_namespace_requests_total"
    kpis = [
        stat("Hit ratio", "Share of look-ups that the cache answered.", "percentunit",
             share(total(hits), total(looked_up)), decimals=1),
        stat("Saved", "By the cache, by equal calls in flight, by similar requests.", "currencyUSD",
             total("weir_cost_saved_usd_total{M}"), decimals=2, steps=[(None, GREEN)]),
        stat("Tokens saved", "Not bought.", "short", total("weir_tokens_saved_total{M}"), none="0", decimals=0),
        stat("Merged calls", "Got the answer of an equal call in flight.", "short",
             total('weir_singleflight_requests_total{S, role="follower"}'), none="0", decimals=0),
        stat("Entries", "Answers held, by where.", "short",
             now("sum by (backend) (weir_cache_entries{S})", "{{backend}}"), none="0"),
        stat("Shared store", "Whether the Redis that replicas share answers; empty where none is configured.", "short",
             "min(weir_shared_store_up{S})", none="none configured", mappings=YES, steps=HOLDS),
    ]  # fmt: skip
    answers = [
        lines("Hit ratio over time", "Against its average of the last week.", "percentunit", [
            q(share(rate(hits), rate(looked_up)), "now"),
            q("job:weir_cache_hits_per_lookup:avg7d{J}", "average of the week {{job}}"),
        ], max=1),
        lines("Look-ups by result", "`bypass` is what was not looked up.", "reqps",
              q(rate("weir_cache_requests_total{M}", "result"), "{{result}}"), stack=True, overrides=RESULTS),
        lines("Saved per hour", "By what answered instead of the provider.", "currencyUSD",
              q(per_hour("weir_cost_saved_usd_total{M}", "source"), "{{source}}"), decimals=2, stack=True),
        table("By model", "Which models the cache is good for, in this time range.", {
            "Look-ups": (total(looked_up, "provider, model"), *COUNT),
            "Hit ratio": (share(total(hits, "provider, model"), total(looked_up, "provider, model")), *SHARE),
            "Saved": (total("weir_cost_saved_usd_total{M}", "provider, model"), *CENTS),
        }, width=12, sort="Saved"),
        table("By namespace", "`X-Cache-Namespace`. Off unless `telemetry.metrics.cache_namespaces` is set.", {
            "Hit ratio": (share(total(f'{by_namespace}{{S, result="hit"}}', "cache_namespace"),
                                total(f'{by_namespace}{{S, result!="bypass"}}', "cache_namespace")), *SHARE),
        }, width=12, none="not counted"),
    ]  # fmt: skip
    inside = [
        lines("Fill", "Bytes held of bytes allowed.", "percentunit",
              q(share("sum by (backend) (weir_cache_size_bytes{S})", "sum by (backend) (weir_cache_capacity_bytes{S})"),
                "{{backend}}"), width=8, max=1, steps=FILLING),
        lines("Evictions", "By why they went: room (size), time (ttl), or on purpose.", "cps",
              q(rate("weir_cache_evictions_total{S}", "backend, reason"), "{{backend}} {{reason}}"), width=8),
        lines("Answers offered", "What became of them.", "cps",
              q(rate("weir_cache_stores_total{S}", "backend, result"), "{{backend}} {{result}}"), width=8),
        lines("Look-up p99", "Time to look up a key.", "s",
              q(quantile(0.99, "weir_cache_lookup_duration_seconds_bucket{S}", "backend"),
                "{{backend}}"), width=8),
        lines("Equal calls in flight", "Leaders asked, followers got their answer.", "reqps",
              q(rate("weir_singleflight_requests_total{S}", "role"), "{{role}}"), width=8, none="0"),
        lines("Followers' wait p95", "How long followers waited for an answer, or for a stream to begin.", "s",
              q(quantile(0.95, "weir_singleflight_wait_seconds_bucket{S}"), "p95"), width=8),
        lines("Backend errors", "Calls went on without the cache.", "cps",
              q(rate("weir_cache_errors_total{S}", "backend, operation"), "{{backend}} {{operation}}"), none="0"),
        lines("Invalidations", "Commands of the operator, by what they chose entries by.", "short",
              q(each("weir_cache_invalidations_total{S}", "strategy") + " > 0", "{{strategy}}"),
              bars=True, none="0", interval="2m"),
    ]  # fmt: skip
    similar = [
        lines("Searches", "For the answer to a request that says the same in other words.", "reqps",
              q(rate("weir_cache_similar_requests_total{S}", "result"), "{{result}}"), width=6, stack=True,
              overrides=RESULTS),
        lines("Search p95", "How long calls waited for one.", "s",
              q(quantile(0.95, "weir_cache_similar_lookup_seconds_bucket{S}"), "p95"), width=6),
        lines("Vectors", "Made by the endpoint, or not.", "reqps",
              q(rate("weir_cache_similar_embeddings_total{S}", "result"), "{{result}}"), width=6),
        lines("Checked answers", "`different`: the similar request deserved another answer. Raise `cache.similar.threshold`.",
              "short",
              q(each("weir_cache_similar_verified_total{S}", "verdict"), "{{verdict}}"), width=6, bars=True,
              none="0", interval="2m", overrides=colored(same=GREEN, different=RED, failed=YELLOW)),
    ]  # fmt: skip
    return page("cache", "Cache", "What the cache answers and saves, and how it is.",
                [row("Totals", kpis), row("Answers", answers), row("Inside", inside), row("Similar requests", similar)],
                models=True)  # fmt: skip


def agents():
    ended = "weir_loop_execution_duration_seconds_count{S}"
    now_row = [
        stat("Active loops", "Runs in progress.", "short", "sum(weir_active_loops{S})", none="0"),
        stat("Most calls in one loop", "Of runs in progress. Above 50 an alert fires.",
             "short", "max(weir_loop_max_active_llm_calls{S})",
             none="0", steps=[(None, GREEN), (30, YELLOW), (50, RED)]),
        stat("Runaways", "Runs that went round in circles or used up a limit, in this time range.", "short",
             total("weir_loop_runaways_total{S}"), none="0", steps=NEVER, decimals=0),
        stat("Loops ended", "In this time range.", "short", total(ended), none="0", decimals=0),
        stat("Loops that failed", "Of those that ended.", "percentunit",
             share(total('weir_loop_execution_duration_seconds_count{S, status="error"}'), total(ended)),
             steps=[(None, GREEN), (0.1, YELLOW), (0.2, RED)], decimals=1, none="0"),
        stat("Cost of loops", "In this time range.", "currencyUSD", total("weir_loop_cost_usd_total{S}"), decimals=2),
    ]  # fmt: skip
    loops = [
        lines("Active loops by type", "Runs that have neither ended nor been silent for `loops.idle`.", "short",
              q("sum by (loop_type) (weir_active_loops{S})", "{{loop_type}}"), width=8, stack=True, none="0"),
        lines("Most calls in one loop by type", "Of runs in progress.", "short",
              q("max by (loop_type) (weir_loop_max_active_llm_calls{S})", "{{loop_type}}"), width=8, none="0"),
        lines("Runaways by reason", "Repeated calls or tools, or too many calls, tokens, dollars or minutes.", "short",
              q(each("weir_loop_runaways_total{S}", "loop_type, reason") + " > 0", "{{loop_type}} {{reason}}"),
              width=8, bars=True, none="0", interval="2m"),
        lines("Duration p95", "Of runs that ended, by type.", "s",
              q(quantile(0.95, "weir_loop_execution_duration_seconds_bucket{S}", "loop_type"),
                "{{loop_type}}"), width=8),
        lines("Loops by status", "How runs ended.", "cps",
              q(rate(ended, "status"), "{{status}}"), width=8, stack=True,
              overrides=colored(success=GREEN, error=RED, timeout=YELLOW, cancelled=BLUE)),
        lines("Loop errors", "By the error of the last call.", "short",
              q(each("weir_loop_errors_total{S}", "loop_type, error_type"), "{{loop_type}} {{error_type}}"),
              width=8, bars=True, none="0", interval="2m"),
        table("Loops side by side", "In this time range.", {
            "Calls": (total("weir_loop_llm_calls_total{S}", "loop_type"), *COUNT),
            "Loops": (total(ended, "loop_type"), *COUNT),
            "Calls per loop": (share(total("weir_loop_llm_calls_total{S}", "loop_type"), total(ended, "loop_type")),
                               "short", {"decimals": 1}),
            "Cost per loop": (share(total("weir_loop_cost_usd_total{S}", "loop_type"), total(ended, "loop_type")), *CENTS),
            "Cost": (total("weir_loop_cost_usd_total{S}", "loop_type"), *CENTS),
        }, sort="Cost"),
    ]  # fmt: skip
    tokens = [
        lines("Tokens by loop type", "What runs buy.", "cps",
              q(rate("weir_loop_tokens_total{S}", "loop_type, token_type"), "{{loop_type}} {{token_type}}"),
              stack=True),
        bars("Top tools", "Tool calls that models asked for, in loops or not.", "short",
             now(f"topk(15, {total('weir_tool_invocations_total{S}', 'tool')})", "{{tool}}"), min=0, decimals=0, none="0"),
        lines("Tool calls by loop type", "Per second.", "cps",
              q(rate("weir_tool_invocations_total{S}", "loop_type"), "{{loop_type}}")),
        lines("Calls by agent", "`X-Agent-ID`.", "reqps",
              q(rate("weir_agent_requests_total{S}", "agent"), "{{agent}}"), stack=True,
              links=[drill_down("Usage", "weir-usage")]),
    ]  # fmt: skip
    return page("agents", "Agents", "Agent loops: what runs now, what it costs, what goes round in circles, and which tools are used.",
                [row("Now", now_row), row("Loops", loops), row("Tokens and tools", tokens)])  # fmt: skip


def sidecar():
    here = [
        stat("Instances", "By version.", "short",
             now("count by (version, revision) (weir_build_info{S})", "{{version}} {{revision}}"),
             text="value_and_name"),
        stat("Reachable", "Share of instances that Prometheus can scrape.", "percentunit",
             "avg(up{S} and on (namespace, job, instance) last_over_time(weir_build_info{S}[1h]))", steps=HOLDS),
        stat("Configuration", "Whether the last load of configuration, prices, keys and token worked, everywhere.",
             "short",
             "min(weir_config_last_reload_successful{S})", mappings=YES, steps=HOLDS),
        stat("Restart needed", "Instances whose configuration says something that holds only after a restart; the log names it.",
             "short", "sum(weir_config_restart_needed{S})", steps=NEVER, decimals=0),
        stat("State kept", "Whether a restart remembers what limits and budgets have counted; empty where nothing is to be kept.",
             "short", "min(weir_state_kept{S})", mappings=YES, steps=HOLDS, none="nothing to keep"),
        stat("Youngest instance", "Since its start.", "s", f"min(time() - (process_start_time_seconds{{S}} {WEIRS}))"),
        stat("Killed for memory", "By the kernel, in this time range.", "short",
             total("weir_cgroup_memory_oom_kills_total{S}"), none="0", steps=NEVER, decimals=0),
    ]  # fmt: skip
    limits = [
        lines("Limits", "Used share of each, of whoever has used most.", "percentunit",
              q("max by (limit) (weir_ratelimit_utilization_ratio{S})", "{{limit}}"), width=8, max=1, none="no limits"),
        lines("Decisions", "Calls let through, let through after a wait, and refused.", "reqps",
              q(rate("weir_ratelimit_requests_total{S}", "limit, decision"), "{{limit}} {{decision}}"),
              width=8, none="no limits"),
        table("Limits side by side", "In this time range.", {
            "Refused": (total('weir_ratelimit_requests_total{S, decision="rejected"}', "limit"), *COUNT),
            "Delayed": (total('weir_ratelimit_requests_total{S, decision="delayed"}', "limit"), *COUNT),
            "Calls": (total("weir_ratelimit_requests_total{S}", "limit"), *COUNT),
            "Subjects": ("sum by (limit) (weir_ratelimit_subjects{S})", "short"),
        }, width=8, sort="Refused", none="no limits"),
    ]  # fmt: skip
    resources = [
        lines("CPU", "Cores that weir uses, and its quota where it has one.", "none", [
            q(f"sum by (instance) (rate(process_cpu_seconds_total{{S}}[$__rate_interval]) {WEIRS})", "{{instance}}"),
            q("max by (instance) (weir_cgroup_cpu_quota_cores{S})", "quota {{instance}}"),
        ], width=8, decimals=2),
        lines("Memory", "Working set and limit of the container, resident memory of the process.", "bytes", [
            q("weir_cgroup_memory_working_set_bytes{S}", "working set {{instance}}"),
            q("weir_cgroup_memory_limit_bytes{S}", "limit {{instance}}"),
            q(f"process_resident_memory_bytes{{S}} {WEIRS}", "resident {{instance}}"),
        ], width=8),
        lines("Throttling", "Share of CPU periods in which the container had to wait; none without a quota.",
              "percentunit",
              q(share(rate("weir_cgroup_cpu_throttled_periods_total{S}", "instance"),
                      rate("weir_cgroup_cpu_periods_total{S}", "instance")), "{{instance}}"), width=8, none="no quota"),
        lines("Time throttled", "Seconds of waiting per second.", "percentunit",
              q(rate("weir_cgroup_cpu_throttled_seconds_total{S}", "instance"), "{{instance}}"), width=8, none="no quota"),
        lines("Pressure", "Share of time in which something waited for a resource (some), or everything did (full).",
              "percentunit", [
            q(rate("weir_cgroup_pressure_waiting_seconds_total{S}", "resource, instance"), "some {{resource}} {{instance}}"),
            q(rate("weir_cgroup_pressure_stalled_seconds_total{S}", "resource, instance"), "full {{resource}} {{instance}}"),
        ], width=8, none="the kernel does not say"),
        lines("Files", "Open descriptors of those allowed.", "percentunit",
              q(f"process_open_fds{{S}} / process_max_fds{{S}} {WEIRS}", "{{instance}}"), width=8, max=1),
        lines("Threads and tasks", "Tasks come and go with connections: more and more of them are a leak.", "short", [
            q(f"process_threads{{S}} {WEIRS}", "threads {{instance}}"),
            q("weir_tasks{S}", "tasks {{instance}}"),
        ], width=8),
        lines("Address space", "Reserved, not used: large figures are nothing bad.", "bytes", [
            q(f"process_virtual_memory_bytes{{S}} {WEIRS}", "reserved {{instance}}"),
            q(f"process_virtual_memory_max_bytes{{S}} {WEIRS}", "allowed {{instance}}"),
        ], width=8),
        lines("Host", "CPU and memory of the whole machine.", "percentunit", [
            q("weir_system_cpu_usage_ratio{S}", "CPU {{instance}}"),
            q(share("weir_system_memory_used_bytes{S}", "weir_system_memory_total_bytes{S}"), "memory {{instance}}"),
        ], width=8, max=1),
        lines("Turned away", "Calls answered with a 503 because weir has too much to do; connections that have to wait because "
              "the system has no descriptor left.", "short", [
            q(each("weir_shed_total{S}", "reason"), "{{reason}}"),
            q(each("weir_accept_refused_total{S}", "side"), "connections {{side}}"),
        ], width=8, bars=True, none="0", interval="2m"),
        lines("Bodies held", "Of requests and replies in progress, of what may be held of them together.", "percentunit",
              q(share("weir_bodies_held_bytes{S}", "weir_bodies_held_limit_bytes{S}"), "{{body}} {{instance}}"),
              width=8, max=1),
        lines("Bodies not read", "Passed on unread, or not stored, because too much is in progress at once. Calls go on.",
              "short", q(each("weir_bodies_unread_total{S}", "body"), "{{body}}"), width=8, bars=True, none="0",
              interval="2m"),
        lines("In flight", "Calls in progress on each instance.", "short",
              q("sum by (instance) (weir_requests_in_flight{S})", "{{instance}}"), width=8, none="0"),
    ]  # fmt: skip
    telemetry = [
        lines("Queues", "How full weir's own queues are. A full one drops; no call waits.", "percentunit",
              q(share("weir_queue_length{S}", "weir_queue_capacity{S}"), "{{queue}} {{instance}}"), width=8, max=1),
        lines("Dropped from queues", "Work that was left out because a queue was full.", "short",
              q(each("weir_queue_dropped_total{S}", "queue"), "{{queue}}"), width=8, bars=True, none="0",
              interval="2m"),
        lines("Ledger queue", "Calls that wait for being written down. A full queue drops; no call waits.", "percentunit",
              q(share("weir_ledger_queue_length{S}", "weir_ledger_queue_capacity{S}"), "{{instance}}"), width=8, max=1,
              none="the ledger is off"),
        lines("Ledger records", "Calls written down per second.", "cps",
              q(rate("weir_ledger_records_total{S}", "instance"), "{{instance}}"), width=8, none="the ledger is off"),
        lines("Lost records", "Calls that are missing in the ledger, by why; ledgers found damaged.", "short", [
            q(each("weir_ledger_dropped_total{S}", "reason"), "{{reason}}"),
            q(each("weir_ledger_damaged_files_total{S}", "instance"), "damaged {{instance}}"),
        ], width=8, bars=True, none="0", interval="2m"),
        lines("Ledger size", "With its write-ahead log; on disk or in memory.", "bytes",
              q("weir_ledger_size_bytes{S}", "{{instance}}"), width=12, none="the ledger is off"),
        lines("Ledger writes", "Time of one transaction, of which there are a few a second.", "s",
              q("histogram_quantile(0.99, sum by (le) (rate(weir_ledger_write_duration_seconds_bucket{S}[$__rate_interval])))", "p99"),
              width=12, none="nothing was written"),
        lines("Span queue", "Spans that wait for the collector.", "percentunit",
              q(share("weir_otlp_queue_length{S}", "weir_otlp_queue_capacity{S}"), "{{instance}}"), width=8, max=1,
              none="traces are off"),
        lines("Spans exported", "Per second.", "cps",
              q(rate("weir_otlp_exported_spans_total{S}", "instance"), "{{instance}}"), width=8,
              none="traces are off"),
        lines("Lost spans", "By why.", "short",
              q(each("weir_otlp_dropped_spans_total{S}", "reason"), "{{reason}}"), width=8, bars=True, none="0",
              interval="2m"),
        lines("Custom metrics refused", "What the app pushed and weir did not take, by why.", "short",
              q(each("weir_custom_metrics_rejected_total{S}", "reason"), "{{reason}}"), width=8, bars=True,
              none="0", interval="2m"),
        lines("Series", "Exposed, of those allowed.", "short", [
            q("weir_metrics_series{S}", "{{instance}}"),
            q("max(weir_metrics_series_limit{S})", "limit"),
        ], width=8),
        bars("Label values", "Values admitted, of those allowed, by label. Beyond it they count as `other`.",
             "percentunit",
             now(f"max by (label) ({share('weir_metrics_label_values{S}', 'weir_metrics_label_values_limit{S}')})", "{{label}}"),
             width=8, min=0, max=1, steps=FILLING),
        lines("Folded into other", "Observations whose label value found no place.", "short",
              q(each("weir_metrics_label_overflow_total{S}", "label"), "{{label}}"), width=12, bars=True,
              none="0", interval="2m"),
        lines("Redactions", "Keys and personal data that weir replaced in what it writes, by what they were.", "short",
              q(each("weir_redactions_total{S}", "kind"), "{{kind}}"), width=12, bars=True, none="0", interval="2m"),
        lines("Reloads", "Of files that weir reads again: prices, keys, token.", "short",
              q(each("weir_config_reloads_total{S}", "result"), "{{result}}"), width=12, bars=True, none="0",
              interval="2m", overrides=colored(success=GREEN, failure=RED)),
        lines("Denied", "Requests to the operator's side without a token, or with a wrong one. Many wrong ones are somebody who "
              "guesses: the audit log says from where.", "short",
              q(each("weir_admin_denied_total{S}", "reason"), "{{reason}}"), width=12, bars=True, none="0", interval="2m"),
    ]  # fmt: skip
    injector = [
        stat("Certificate", "Until the injector's certificate ends that ends first. It is renewed a month before.", "s",
             "min(weir_inject_cert_expiry_timestamp_seconds{S} - time())", height=8, none="no injector"),
        lines("Reviews", "Pods that the API server asked about, by webhook.", "reqps",
              q(rate("weir_inject_requests_total{S}", "webhook"), "{{webhook}}"), width=6, none="no injector"),
        lines("Pods", "What became of them: weir is in, not wanted, refused for a wrong annotation, or missing for a fault.",
              "short", q(each('weir_inject_results_total{S}', "result, reason"), "{{result}} {{reason}}"),
              width=7, bars=True, none="no injector", interval="2m"),
        lines("Time of a review", "The API server waits for it; it gives up after 5 seconds.", "s", [
            q(quantile(n / 100, "weir_inject_duration_seconds_bucket{S}"), f"p{n}") for n in (50, 99)
        ], width=7, none="no injector"),
    ]  # fmt: skip
    return page("sidecar", "Sidecar", "weir itself: limits, CPU and memory, queues, telemetry, configuration, the injector.",
                [row("Instances", here), row("Limits", limits), row("Resources", resources), row("Telemetry", telemetry),
                 row("Injector", injector)])  # fmt: skip


def page(name, title, description, rows, *, models=False, traced=False, logged=False, refresh="1m", since="now-6h"):
    """A dashboard with what all of them have: the choice of app and instance, the marks, the links."""
    variables = [
        datasource("datasource", "prometheus", "Data source"),
        variable("namespace", "label_values(weir_build_info, namespace)"),
        variable("job", 'label_values(weir_build_info{namespace=~"$namespace"}, job)'),
        variable("instance", 'label_values(weir_build_info{namespace=~"$namespace", job=~"$job"}, instance)'),
    ]
    if models:
        chosen = 'namespace=~"$namespace", job=~"$job"'
        variables += [
            variable("provider", f"label_values(weir_requests_total{{{chosen}}}, provider)", "Provider"),
            variable("model", f'label_values(weir_requests_total{{{chosen}, provider=~"$provider"}}, model)', "Model"),
        ]
    if traced:
        variables.append(datasource("tempo_datasource", "tempo", "Tempo data source"))
    if logged:
        variables.append(datasource("loki_datasource", "loki", "Loki data source"))
    marks = [
        annotation("Starts", f"(process_start_time_seconds{{S}} {WEIRS}) * 1000", BLUE, "weir started", "{{job}} {{instance}}",
                   useValueForTime=True),
        annotation("Reloads", "changes(weir_config_last_reload_success_timestamp_seconds{S}[5m]) > 0", ORANGE, "files read again",
                   "{{job}} {{instance}}"),
        annotation("Alerts", 'ALERTS{J, alertname=~"Weir.+", alertstate="firing"}', RED, "{{alertname}}", "{{severity}} {{job}}"),
    ]  # fmt: skip
    return dashboard(f"weir-{name}", f"weir / {title}", description, rows, variables, marks, refresh, since)


def files():
    """Every dashboard, as the name and the content of its file."""
    pages = (overview(), cost(), usage(), performance(), cache(), agents(), sidecar())
    return {f"{page['uid']}.json": json.dumps(page, indent=2, ensure_ascii=False) + "\n" for page in pages}


if __name__ == "__main__":
    for name, content in files().items():
        (FOLDER / name).write_text(content, encoding="utf-8")
