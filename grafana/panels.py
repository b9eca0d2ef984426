"""What dashboards are made of: small functions that return Grafana's JSON, as plain dictionaries.

The shape is the classic one, schema version 39, which Grafana 11 reads and Grafana 12 migrates when it loads it. Knows
panels, variables and how a page is laid out; not what weir measures: that is dashboards.py.
"""

import json
import re
import urllib.parse

SCHEMA_VERSION = 39
COLUMNS = 24
PROMETHEUS = {"type": "prometheus", "uid": "${datasource}"}
TEMPO = {"type": "tempo", "uid": "${tempo_datasource}"}
LOKI = {"type": "loki", "uid": "${loki_datasource}"}

# What expressions may begin a selector with, and the matchers it stands for: `{S, outcome="success"}`.
APP = 'namespace=~"$namespace", job=~"$job"'
INSTANCE = f'{APP}, instance=~"$instance"'
MATCHERS = {
    "J": APP,  # recorded series, which have no instance
    "S": INSTANCE,
    "P": f'{INSTANCE}, provider=~"$provider"',
    "M": f'{INSTANCE}, provider=~"$provider", model=~"$model"',
    "G": f'{INSTANCE}, gen_ai_provider_name=~"$provider"',
}

GREEN, YELLOW, ORANGE, RED, BLUE = "green", "yellow", "orange", "red", "blue"
# A share of something that ends: green, then a warning, then hardly anything left.
FILLING = [(None, GREEN), (0.8, ORANGE), (0.9, RED)]
# Whether something holds.
HOLDS = [(None, RED), (1, GREEN)]
# Something that should not happen.
NEVER = [(None, GREEN), (1, RED)]
# A share of calls that fail.
FAILING = [(None, GREEN), (0.01, YELLOW), (0.05, RED)]
NEUTRAL = [(None, BLUE)]


def expand(expression):
    """The expression with the matchers that stand behind the letters."""
    return re.sub(r"\{([JSPMG])(?=[,}])", lambda found: "{" + MATCHERS[found[1]], expression)


# Queries


def q(expression, legend="", **more):
    """One expression; `exemplar=True` also fetches the traces that Prometheus keeps beside a histogram."""
    return {"expr": expand(expression), "legendFormat": legend, "range": True, "instant": False, **more}


def now(expression, legend="", **more):
    """One expression, evaluated at the end of the time range only."""
    return q(expression, legend, range=False, instant=True, **more)


def column(expression, **more):
    """One expression, for a table."""
    return now(expression, format="table", **more)


def quantiles(bucket):
    """The 50th, 95th and 99th percentile of a histogram, with the traces of calls."""
    return [q(quantile(n / 100, bucket), f"p{n}", exemplar=n == 95) for n in (50, 95, 99)]


# Expressions


def rate(counter, by=""):
    """How much is added to a counter a second."""
    return f"sum{grouped(by)}(rate({counter}[$__rate_interval]))"


def per_hour(counter, by=""):
    """The same an hour."""
    return f"3600 * {rate(counter, by)}"


def total(counter, by=""):
    """How much was added to a counter in the time range of the page."""
    return f"sum{grouped(by)}(increase({counter}[$__range]))"


def each(counter, by=""):
    """How much was added to a counter in each interval: for bars."""
    return f"sum{grouped(by)}(increase({counter}[$__interval]))"


def quantile(n, bucket, by=""):
    """Below which value the share `n` of observations is."""
    return f"histogram_quantile({n}, {rate(bucket, f'le, {by}' if by else 'le')})"


def grouped(by):
    """The clause of an aggregation that keeps these labels."""
    return f" by ({by}) " if by else ""


# Panels


def panel(kind, title, description, unit, targets, width, height=8, *, datasource=PROMETHEUS, **more):
    """A panel of any kind. Where it goes is decided when the page is laid out."""
    defaults = {
        "unit": unit,
        "decimals": more.pop("decimals", None),
        "min": more.pop("min", None),
        "max": more.pop("max", None),
        "noValue": more.pop("none", None),
        "color": {"mode": more.pop("color", "thresholds")},
        "thresholds": {
            "mode": "absolute",
            "steps": [{"value": value, "color": color} for value, color in more.pop("steps", NEUTRAL)],
        },
        "mappings": more.pop("mappings", []),
        "links": more.pop("links", []),
        "custom": more.pop("custom", {}),
    }
    overrides = more.pop("overrides", [])
    targets = targets if isinstance(targets, list) else [targets]
    asked = {
        "datasource": datasource,
        "targets": [{"datasource": datasource, **target, "refId": letter(at)} for at, target in enumerate(targets)],
    }
    return {
        "type": kind,
        "title": title,
        "description": description,
        **(asked if datasource else {}),
        "fieldConfig": {"defaults": without_none(defaults), "overrides": overrides},
        "gridPos": {"x": 0, "y": 0, "w": width, "h": height},
        **more,
    }


def stat(title, description, unit, expression, width=4, height=4, **more):
    """One number, for the whole time range."""
    options = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": "value",
        "graphMode": "none",
        "textMode": more.pop("text", "auto"),
        "justifyMode": "auto",
        "orientation": "auto",
    }
    target = expression if isinstance(expression, (dict, list)) else now(expression)
    return panel("stat", title, description, unit, target, width, height, options=options, **more)


def gauge(title, description, unit, expression, width=4, height=4, **more):
    """One number between two ends."""
    options = {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}, "showThresholdMarkers": True}
    return panel(
        "gauge", title, description, unit, now(expression), width, height, options=options, min=0, max=1, **more
    )


def bars(title, description, unit, target, width=12, height=8, **more):
    """One bar for each series, as long as its newest value."""
    options = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "orientation": "horizontal",
        "displayMode": "basic",
        "showUnfilled": True,
    }
    return panel("bargauge", title, description, unit, target, width, height, options=options, **more)


def pie(title, description, unit, target, width=8, height=8, **more):
    """How a total is made up."""
    options = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "pieType": "donut",
        "legend": {"displayMode": "table", "placement": "right", "showLegend": True, "values": ["value", "percent"]},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return panel("piechart", title, description, unit, target, width, height, options=options, color="palette-classic", **more)


def lines(title, description, unit, targets, width=12, height=8, **more):
    """Values over time. `stack=True` piles them up; `bars=True` draws each interval by itself."""
    stack, as_bars = more.pop("stack", False), more.pop("bars", False)
    custom = {
        "drawStyle": "bars" if as_bars else "line",
        "fillOpacity": 80 if as_bars else 25 if stack else 10,
        "lineWidth": 0 if as_bars else 1,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"mode": "normal" if stack else "none", "group": "A"},
    } | more.pop("custom", {})
    options = {
        "legend": {
            "displayMode": "table",
            "placement": "bottom",
            "showLegend": True,
            "calcs": ["sum", "max"] if as_bars else ["mean", "max"],
        },
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    more = {"color": "palette-classic", "min": 0} | more
    return panel("timeseries", title, description, unit, targets, width, height, custom=custom, options=options, **more)


def heatmap(title, description, unit, expression, width=12, height=8):
    """How many observations fell into each bucket, over time."""
    options = {
        "calculate": False,
        "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64},
        "yAxis": {"unit": unit, "axisPlacement": "left"},
        "cellGap": 1,
        "legend": {"show": True},
        "tooltip": {"mode": "single", "yHistogram": True, "showColorScale": False},
    }
    return panel(
        "heatmap", title, description, unit, q(expression, "{{le}}", format="heatmap"), width, height, options=options
    )


def table(title, description, columns, width=24, height=8, **more):
    """One line for each label set. `columns`: title → (expression, unit) or (expression, unit, further properties)."""
    targets = [column(expression) for expression, *_ in columns.values()]
    overrides = [by_name("Time", {"custom.hidden": True})]
    for name, (_, unit, *properties) in columns.items():
        overrides.append(by_name(name, {"unit": unit} | (properties[0] if properties else {})))
    names = {f"Value #{letter(at)}": name for at, name in enumerate(columns)}
    if len(targets) == 1:
        names = {"Value": next(iter(columns))}
    more.setdefault(
        "transformations",
        [
            {"id": "merge", "options": {}},
            {"id": "organize", "options": {"renameByName": names | more.pop("rename", {}), "excludeByName": {"Time": True}}},
        ],
    )
    options = {"cellHeight": "sm", "showHeader": True, "footer": {"show": False}}
    if sort := more.pop("sort", None):
        options["sortBy"] = [{"displayName": sort, "desc": True}]
    overrides += more.pop("overrides", [])
    return panel(
        "table",
        title,
        description,
        more.pop("unit", "short"),
        targets,
        width,
        height,
        options=options,
        overrides=overrides,
        **more,
    )


def text(title, description, markdown, width=12, height=8):
    """Words."""
    options = {"mode": "markdown", "content": markdown}
    return panel("text", title, description, "none", [], width, height, datasource=None, options=options)


def firing(title, description, width=8, height=8):
    """The alerts that fire now."""
    options = {
        "alertInstanceLabelFilter": '{alertname=~"Weir.+"}',
        "dashboardAlerts": False,
        "groupMode": "default",
        "maxItems": 20,
        "sortOrder": 1,
        "stateFilter": {"firing": True, "pending": True, "noData": False, "normal": False, "error": True},
        "viewMode": "list",
    }
    return panel("alertlist", title, description, "none", [], width, height, datasource=None, options=options)


def letter(at):
    """How Grafana calls the query at this place."""
    return chr(ord("A") + at)


def by_name(name, properties):
    """Properties of the field with this name, beside those of the whole panel."""
    return {
        "matcher": {"id": "byName", "options": name},
        "properties": [{"id": key, "value": value} for key, value in properties.items()],
    }


def colored(**colors):
    """Series in colours that say what they mean: `success=GREEN`."""
    return [by_name(name, {"color": {"mode": "fixed", "fixedColor": color}}) for name, color in colors.items()]


def mapped(*rules):
    """Words in place of numbers: (from, to, words, colour), ends included."""
    return [
        {"type": "range", "options": {"from": low, "to": high, "result": {"text": words, "color": color, "index": at}}}
        for at, (low, high, words, color) in enumerate(rules)
    ]


def without_none(fields):
    return {name: value for name, value in fields.items() if value is not None}


# Links


def drill_down(title, uid, **labels):
    """A link to another dashboard that keeps time and variables, and chooses what was clicked on."""
    chosen = "".join(f"&var-{variable}=${{__field.labels.{label}}}" for variable, label in labels.items())
    kept = "".join(f"&${{{name}:queryparam}}" for name in ("datasource", "namespace", "job", "instance"))
    return {"title": title, "url": f"/d/{uid}?${{__url_time_range}}{kept}{chosen}"}


def traces(title, *conditions):
    """A link to a search for the traces behind a value; conditions are TraceQL: `span.error.type="${__value.text}"`."""
    spans = " && ".join(('resource.service.name=~"${job:pipe}"', *conditions))
    query = {"refId": "A", "datasource": TEMPO, "queryType": "traceql", "query": f"{{{spans}}}", "limit": 20}
    pane = {"datasource": TEMPO["uid"], "queries": [query], "range": {"from": "${__from}", "to": "${__to}"}}
    panes = urllib.parse.quote(json.dumps({"weir": pane}, separators=(",", ":")), safe="$:")
    # What Grafana is to fill in stays as it is.
    panes = re.sub(r"\$%7B([\w.:]+)%7D", r"${\1}", panes)
    return {"title": title, "url": f"/explore?schemaVersion=1&panes={panes}", "targetBlank": True}


# Pages


def row(title, panels, collapsed=False):
    """Panels under a title, from left to right and on the next line when one is full."""
    return {"title": title, "panels": panels, "collapsed": collapsed}


def laid_out(rows):
    """Every panel at its place, with an id of its own."""
    placed, y = [], 0
    for content in rows:
        head = {
            "type": "row",
            "title": content["title"],
            "collapsed": content["collapsed"],
            "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1},
            "panels": [],
        }
        x, y, height = 0, y + 1, 0
        for item in content["panels"]:
            place = item["gridPos"]
            if x + place["w"] > COLUMNS:
                x, y, height = 0, y + height, 0
            place["x"], place["y"] = x, y
            x, height = x + place["w"], max(height, place["h"])
        y += height
        placed.append(head)
        (head["panels"] if content["collapsed"] else placed).extend(content["panels"])
    every = [item for top in placed for item in (top, *top.get("panels", []))]
    for number, item in enumerate(every, start=1):
        item["id"] = number
    return placed


def datasource(name, kind, label):
    """A choice among the data sources of a kind; without one there is nothing to choose, and nothing is asked."""
    chosen = {"refresh": 1, "hide": 0, "regex": "", "current": {}}
    return {"type": "datasource", "name": name, "label": label, "query": kind, **chosen}


def variable(name, query, label=None):
    """A choice among the values of a label. `.*` for all of them also finds what has no such label."""
    return {
        "type": "query",
        "name": name,
        "label": label or name,
        "datasource": PROMETHEUS,
        "query": {"query": query, "refId": name},
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "refresh": 2,
        "sort": 1,
        "hide": 0,
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
    }


def annotation(name, expression, color, title, words, **more):
    """Marks on every panel that has a time axis."""
    return {
        "name": name,
        "datasource": PROMETHEUS,
        "enable": True,
        "hide": False,
        "iconColor": color,
        "expr": expand(expression),
        "titleFormat": title,
        "textFormat": words,
        "step": "60s",
        **more,
    }


def dashboard(uid, title, description, rows, variables, annotations, refresh="1m", since="now-6h"):
    """A whole dashboard."""
    link = {
        "type": "dashboards",
        "title": "weir",
        "tags": ["weir"],
        "asDropdown": False,
        "includeVars": True,
        "keepTime": True,
        "targetBlank": False,
        "icon": "external link",
        "tooltip": "",
        "url": "",
    }
    return {
        "id": None,
        "uid": uid,
        "title": title,
        "description": description,
        "tags": ["weir", "llm"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": False,
        "timezone": "browser",
        "graphTooltip": 1,
        "refresh": refresh,
        "time": {"from": since, "to": "now"},
        "links": [link],
        "templating": {"list": variables},
        "annotations": {"list": annotations},
        "panels": laid_out(rows),
    }
