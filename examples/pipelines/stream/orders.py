"""What the functions of the example call."""


def rate(item):
    """A row of rates.jsonl: {"currency": ..., "country": ..., "rate": ...}"""
    return [item["country"], item["currency"], item["rate"]]


def price(order, rates, broken=False):
    """A row of orders.csv, whose values are text."""
    if broken and order["id"] == "o-3":
        raise ValueError(f"order {order['id']}: no price for {order['article']!r}")
    currency, factor = {country: (name, f) for country, name, f in rates}[order["country"]]
    return {"id": order["id"], "total": round(int(order["pieces"]) * float(order["dollars"]) * factor, 2), "currency": currency}


def split(line):
    """One line of parcels.txt: a number of parts, separated by commas."""
    return [part.strip() for part in line.split(",")]
