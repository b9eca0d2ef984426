"""What weir counted equals what the provider charged, to the token."""

from traffic import make_traffic


def test_tokens_and_requests_equal_the_bill(fresh_house):
    make_traffic(fresh_house)
    for line in fresh_house.bill()["lines"]:
        labels = {"provider": line["api"], "model": line["model"]}

        def tokens(*classes, labels=labels):
            return sum(fresh_house.sum("weir_tokens_total", token_type=name, **labels) for name in classes)

        assert tokens("cache_read") == line["cached"], line
        assert tokens("cache_write") == line["cache_write_short"] + line["cache_write_long"], line
        assert tokens("input", "cache_read", "cache_write") == line["input"], line
        assert tokens("reasoning") == line["reasoning"], line
        assert tokens("output", "reasoning") == line["output"], line
        hits = fresh_house.sum("weir_cache_requests_total", result="hit", **labels)
        assert fresh_house.sum("weir_requests_total", **labels) - hits == line["requests"], line
        assert fresh_house.sum("weir_requests_total", outcome="success", **labels) - hits == (
            line["requests"] - line["failures"]
        ), line
    assert fresh_house.sum("weir_unpriced_requests_total") == 0
    assert fresh_house.sum("weir_cache_requests_total", result="hit") > 0
