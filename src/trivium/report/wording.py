"""Numbers, durations and texts as the report writes them."""

import json
import re
import unicodedata
from typing import Any

from trivium.report.loading import number

MISSING = "–"
# Control characters and lone surrogates have no place in HTML; format characters (such as direction overrides) could
# make a hostile answer rearrange the text around it. They are shown as the replacement character.
_KEPT = {"\n", "\t", "\u200d"}


def decimal(value: Any, digits: int = 3) -> str:
    """A number with fixed decimals; whole ones as counts, very small ones in powers of ten.

    >>> decimal(0.9712), decimal(1200000), decimal(0.00002), decimal(None)
    ('0.971', '1\\u202f200\\u202f000', '2.0e-05', '–')
    """
    found = number(value)
    if found is None:
        return MISSING
    if isinstance(value, int):
        return f"{value:,}".replace(",", "\u202f")
    if abs(found) < 1e-7:  # rounding, of a KL to itself for instance
        found = 0.0
    if found != 0 and abs(found) < 0.5 * 10**-digits:
        return f"{found:.1e}"
    if abs(found) >= 10:
        digits = min(digits, 1)
    return f"{found:,.{digits}f}".replace(",", "\u202f").replace("-", "\u2212")


def signed(value: Any, digits: int = 2) -> str:
    """A difference with its sign.

    >>> signed(0.4), signed(-0.25), signed(-0.001)
    ('+0.40', '−0.25', '0.00')
    """
    found = number(value)
    if found is None:
        return MISSING
    text = f"{found:+.{digits}f}"
    return (text[1:] if float(text) == 0 else text).replace("-", "\u2212")


def count(value: Any) -> str:
    """A large count in three figures.

    >>> count(12), count(34567), count(2_500_000)
    ('12', '34.6\\xa0k', '2.50\\xa0M')
    """
    found = number(value)
    if found is None:
        return MISSING
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if found >= size:
            scaled = found / (1e3 if unit == "k" else size)
            return f"{scaled:.{max(0, 2 - len(str(int(scaled))) + 1)}f}\u00a0{unit}"
    return decimal(int(found)) if found == int(found) else decimal(found, 1)


def size(amount: Any) -> str:
    """Bytes in three figures.

    >>> size(812), size(3_479_040), size(14_000_000_000)
    ('812\\xa0B', '3.48\\xa0MB', '14.0\\xa0GB')
    """
    found = number(amount)
    if found is None:
        return MISSING
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if found >= unit:
            scaled = found / unit
            return f"{scaled:.{max(0, 3 - len(str(int(scaled))))}f}\u00a0{name}"
    return f"{found:.0f}\u00a0B"


def duration(seconds: Any) -> str:
    """Seconds in the two units a person would use.

    >>> duration(3.21), duration(75), duration(7260)
    ('3.2\\xa0s', '1\\xa0min 15\\xa0s', '2\\xa0h 1\\xa0min')
    """
    found = number(seconds)
    if found is None:
        return MISSING
    if found < 59.95:
        return f"{found:.1f}\u00a0s"
    whole = round(found)
    if whole < 3600:
        return f"{whole // 60}\u00a0min {whole % 60}\u00a0s"
    return f"{whole // 3600}\u00a0h {whole % 3600 // 60}\u00a0min"


def clean(text: Any, limit: int = 1500) -> str:
    """Any value as text that is safe to place in a page (escaping is the template's), at most ``limit`` characters."""
    if not isinstance(text, str):
        text = json.dumps(text, ensure_ascii=False, default=str) if isinstance(text, (dict, list)) else str(text)
    cut = text[:limit]
    shown = "".join(c if c in _KEPT or unicodedata.category(c) not in ("Cc", "Cf", "Cs") else "\ufffd" for c in cut)
    return shown if len(text) <= limit else f"{shown} … ({len(text) - limit} more characters)"


def title(key: str) -> str:
    """A metric's key as words: ``slot_error_rate`` is 'Slot error rate'."""
    words = re.sub(r"[_]+", " ", key).strip()
    return words[:1].upper() + words[1:]


def flatten(value: Any, prefix: str = "") -> dict[str, float]:
    """Every number inside nested mappings, by its path with slashes."""
    if isinstance(value, dict):
        found: dict[str, float] = {}
        for key, inner in value.items():
            found |= flatten(inner, f"{prefix}/{key}" if prefix else str(key))
        return found
    return {} if number(value) is None else {prefix: value}


def short_hash(value: Any) -> str:
    """The first characters of a hash, without its algorithm; other texts as they are.

    >>> short_hash("sha256:0123456789abcdef0123456789abcdef"), short_hash("0.1.0")
    ('0123456789', '0.1.0')
    """
    text = clean(value)
    return text.split(":")[-1][:10] if re.fullmatch(r"([\w-]+:)?[0-9a-f]{16,}", text) else text
