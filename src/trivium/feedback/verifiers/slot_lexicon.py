"""How English texts state the slots of the E2E restaurant world, calibrated on its human references.

All patterns are matched against the normal form of ``slot_analysis.normal_form``: lower case without accents,
hyphens as spaces, single spaces, punctuation as tokens of its own (" , "), the names of places taken out. No pattern
has a nested unbounded repetition, so matching is linear in practice and the text is bounded anyway.
"""

import re

NAMES = (
    "Alimentum", "Aromi", "Bibimbap House", "Blue Spice", "Browns Cambridge", "Clowns", "Cocum", "Cotto", "Fitzbillies",
    "Giraffe", "Green Man", "Loch Fyne", "Midsummer House", "Strada", "Taste of Cambridge", "The Cambridge Blue",
    "The Cricketers", "The Dumpling Tree", "The Eagle", "The Golden Curry", "The Golden Palace", "The Mill",
    "The Olive Grove", "The Phoenix", "The Plough", "The Punter", "The Rice Boat", "The Twenty Two", "The Vaults",
    "The Waterman", "The Wrestlers", "Travellers Rest Beefeater", "Wildwood", "Zizzi",
)  # fmt: skip
LANDMARKS = (
    "All Bar One", "Avalon", "Burger King", "Café Adriatic", "Café Brazil", "Café Rouge", "Café Sicilia", "Clare Hall",
    "Crowne Plaza Hotel", "Express by Holiday Inn", "Rainbow Vegetarian Café", "Raja Indian Cuisine", "Ranch",
    "The Bakers", "The Portland Arms", "The Rice Boat", "The Six Bells", "The Sorrento", "Yippee Noodle Bar",
)  # fmt: skip
# Short forms that people use for a landmark; each implies the whole name.
ALIASES = {
    "crowne plaza hotel": ("crowne plaza", "crown plaza hotel", "crown plaza"),
    "express by holiday inn": ("holiday inn express", "express holiday inn", "holiday inn"),
    "rainbow vegetarian cafe": ("rainbow vegetarian", "rainbow cafe"),
    "raja indian cuisine": ("raja indian restaurant", "raja indian", "raja cuisine", "raja"),
    "travellers rest beefeater": ("travelers rest beefeater", "travellers rest", "travelers rest"),
    "browns cambridge": ("brown s cambridge",),
    "yippee noodle bar": ("yippee noodle",),
}

# Values that people use for one another; with ``equivalents`` they count as the same.
EQUIVALENTS = {
    "priceRange": (("cheap", "less than £20"), ("moderate", "£20-25"), ("high", "more than £30")),
    "customer rating": (("low", "1 out of 5"), ("average", "3 out of 5"), ("high", "5 out of 5")),
}

_FILL = (  # words between a noun and the adjective that follows it
    r"(?: (?:is|are|was|of|in|at|on|the|a|an|it|to|from|for|being|with|that|has|have|its|their|very|quite|fairly|"
    r"rather|"
    r"pretty|set|around|about|ranges?|ranging|ranged|ranking|rank|category|end|scale|level|side|tend|be|between|just|"
    r"considered|only|all|overall|menu|food|meals?|per|by|as|customers?))"
)
_PRICE = r"pric(?:e|es|ed|ey|ing|ings|ely)"
_RATING = (
    r"(?:rat(?:ing|ings|ed|e|es)|reviews?|reviewed|score[sd]?|feedback|satisfaction|scoring|ranking|ranked|"
    r"reputation|opinions?)"
)
_WHO = (
    r"(?: (?:customers?|customer s|users?|consumers?|guests?|patrons?|stars?|by|overall|service|approval|quality|"
    r"family|public|clients?|visitors?|diners?))"
)


def _price(word: str) -> str:
    """'low price', 'low end menu price', and 'the price range is low'."""
    return (
        rf"{word}(?:ly)?(?: (?:end|to|food|menu|cost)){{0,2}} {_PRICE}\b|"
        rf"\b{_PRICE}(?: (?:range|ranges|point|bracket|category|list|rate|rating)s?)?{_FILL}{{0,5}} {word}\b"
        rf"(?!(?:ly)?{_WHO}{{0,2}} {_RATING}\b)"
    )


def _rating(word: str) -> str:
    """'low customer rating', 'rated low by customers' and 'customers rate it low'."""
    return (
        rf"{word}(?:ly)?(?: (?:quality|food|in|on|for)){{0,1}}{_WHO}{{0,3}} {_RATING}\b|"
        rf"\b{_RATING}(?: (?:it|them|this|by|as|place))?{_WHO}{{0,2}}{_FILL}{{0,4}} {word}(?:ly)?\b"
        rf"(?!(?:ly)?(?: (?:in|to|cost|end)){{0,1}} (?:{_PRICE}|expensive)\b)"
    )


def _out_of_five(digit: str, word: str) -> str:
    """'5 out of 5', 'five stars', 'rated 5'."""
    number = rf"(?:{digit}|{word})"
    return (
        rf"\b{number}(?: stars?)? (?:out of|our of|put of|of|to|from|over|/|out) (?:a |possible )?(?:5|five)\b|"
        rf"\b{number}/5|"
        rf"(?<!out of )(?<!of )\b{number} stars?\b|"
        rf"\b{_RATING}(?: (?:is|of|at|as|a|with|only|just)){{0,3}} {number}\b(?! (?:out )?(?:of|/|pounds|to|and))"
    )


_NOT = r"(?<!not )(?<!n t )(?<!not very )(?<!not have )(?<!not too )(?<!not so )(?<!never )"
_TWENTY, _THIRTY = r"(?:the )?(?:£|l|euros?|gbp|\$)? ?20\b", r"(?:the )?(?:£|l|euros?|gbp|\$)? ?30\b"

# What states a value, and excludes the others.
_STRONG: dict[str, dict[str, tuple[str, ...]]] = {
    "eatType": {
        "coffee shop": (r"\bcoffee ?(?:shops?|house|place|bar|store|stop|spot|ship|chop)\b", r"\bcafes?\b"),
        "pub": (r"\bpubs?\b", r"(?<!coffee )(?<!sushi )\bbars?\b", r"\btaverns?\b", r"\bpublic house\b"),
        "restaurant": (r"\brest(?:au|ua|u|aura)ra?nts?\b", r"\beater(?:y|ies)\b", r"\bdiners?\b", r"\bbistros?\b"),
    },
    "food": {
        "Chinese": (r"\bchinese\b",),
        "English": (r"\benglish\b", r"\bbritish\b(?! pounds?)"),
        "Fast food": (r"\bfast ?foods?\b",),
        "French": (r"\bfrench\b",),
        "Italian": (r"\bitalian\b",),
        "Japanese": (r"\bjapanese\b",),
        "Indian": (r"\bindian\b",),
    },
    "priceRange": {
        "cheap": (
            rf"{_NOT}(?<!moderately )\bcheap(?:er|est|ly)?\b",
            r"\binexpensive(?:ly)?\b",
            r"\blow(?:er)? costs?\b",
            r"\bnot (?:too |very )?expensive\b",
            _price(r"(?<!rated )\blow(?:er|est)?"),
        ),
        "moderate": (
            _price(r"\b(?:moderate|mid|medium|middle)"),
            r"\bmoderately (?:expensive|cheap)\b",
            r"\bmid ?(?:range|ranged|level|tier|priced?)\b",
            r"\bmoderate(?:ly)? (?:range|costs?|costing)\b",
        ),
        "high": (
            rf"{_NOT}(?<!moderately )(?<!less )\bexpensive(?:ly)?\b",
            r"\bpricey\b",
            r"\b(?:upscale|costly)\b",
            r"\bhigh(?:er)? (?:costs?|costing)\b",
            _price(r"\b(?<!not )high(?:er|est)?"),
            r"\bup ?market\b",
        ),
        "less than £20": (
            rf"\b(?:less|lower|cheaper|fewer)(?: \w+)?? (?:than|then|that) {_TWENTY}",
            rf"\b(?:under|below|up to|beneath|within|maximum of) {_TWENTY}",
            rf"{_TWENTY}(?: (?:pounds|euros|gbp|quid))? (?:or|and) (?:less|under|below|lower)\b",
            rf"< ?{_TWENTY}",
            rf"\b(?:not|no) (?:more|over) (?:than )?{_TWENTY}",
        ),
        "£20-25": (
            rf"{_TWENTY}(?: (?:pounds|euros|gbp))?(?: ?(?:to|and|or|till|through|/))* (?:£|l|euros?|gbp|\$)? ?25\b",
            r"\btwenty to twenty five\b",
        ),
        "more than £30": (
            rf"\b(?:more|higher|greater|upwards?)(?: (?:than|then|that|of))? {_THIRTY}",
            rf"\b(?:over|above|exceed(?:s|ing)|beyond|at least|start(?:s|ing)? at|minimum of|plus|from) {_THIRTY}",
            rf"{_THIRTY} ?(?:pounds )?(?:\+|plus|and (?:up|above|over|more)|or (?:more|above|over|higher)|upwards?)",
            rf"> ?{_THIRTY}",
        ),
    },
    "customer rating": {
        "low": (
            _rating(r"\b(?:low|lower|lowest|poor|bad|terrible|negative|below average|badly|unfavou?rable|horrible)"),
            r"\b(?:low|poor) (?:quality|service|customer satisfaction)\b",
            r"\bpoorly\b(?! lit)",
            r"\bnot (?:very |so )?(?:highly|well) (?:rated|liked|received|reviewed)\b",
            r"\b(?:not|n t) (?:have |get |receive )?(?:very )?(?:good|great|high) (?:customer )?(?:rating|review)s?\b",
            r"\bnot rated (?:very )?(?:well|highly)\b",
        ),
        "average": (_rating(r"\b(?<!below )(?<!above )(?:average|mediocre|mixed)"), r"\baveragely (?:rated|ranked)\b"),
        "high": (
            _rating(rf"{_NOT}\b(?:high|higher|highest|excellent|top|outstanding|superb|fantastic|best|perfect|highly)"),
            rf"{_NOT}\bhighly (?:recommended|regarded|praised|acclaimed)\b",
        ),
        **{
            f"{digit} out of 5": (_out_of_five(str(digit), word),)
            for digit, word in enumerate(("one", "two", "three", "four", "five"), start=1)
        },
    },
    "area": {
        "riverside": (
            r"\briver ?sides?\b",
            r"\b(?:by|on|near|along|beside|at|next to|close to) (?:the |a )?river\b",
            r"\briver ?banks?\b",
        ),
        "city centre": (
            r"\bcit(?:y|ies) ?(?:s )?(?:centre|center|central|centr)s?\b",
            r"\b(?:centre|center|heart|middle|core) of (?:the |a )?(?:city|town|cambridge)\b",
            r"\b(?:town (?:centre|center)|down ?town|inner city|center city|centre city)\b",
        ),
    },
}

# What people also say for a value, too loosely to exclude another.
_WEAK: dict[str, dict[str, tuple[str, ...]]] = {
    "eatType": {
        "coffee shop": (r"\bcoffee\b",),
        "pub": (r"\binn\b",),
        "restaurant": (
            r"\bdining\b",
            r"\b(?:place|places|somewhere|eat) to eat\b",
            r"\beat(?:ing)?\b",
            r"\bestablishment\b",
            r"\bvenue\b",
            r"\b(?:food|sushi) (?:place|joint|shop|bar)\b",
        ),
    },
    "food": {
        "English": (r"\bbreakfasts?\b", r"\bfish and chips\b", r"\btraditional\b", r"\bengland\b"),
        "Fast food": (r"\bburgers?\b(?! king)", r"\bfries\b", r"\btake ?(?:away|out)\b"),
        "French": (r"\bwines?\b", r"\bcheeses?\b", r"\bfrance\b"),
        "Italian": (r"\bpastas?\b", r"\bpizzas?\b", r"\bspaghetti\b", r"\bitaly\b"),
        "Japanese": (r"\bsushi\b", r"\bjapan\b"),
        "Indian": (r"\bcurr(?:y|ies)\b", r"\bindia\b"),
        "Chinese": (r"\bchin(?:a|es)\b", r"\bnoodles?\b"),
    },
    "priceRange": {
        "cheap": (
            r"\bbudget\b",
            r"\baffordabl[ey]\b",
            r"\beconomical(?:ly)?\b",
            r"\bbargain\b",
            r"\bgood value\b",
            r"\bvalue for money\b",
            r"\blow in price\b",
            r"\b(?:great|good|best|nice) prices?\b",
        ),
        "moderate": (
            _price(r"\b(?:average|reasonable|fair|decent|modest|normal|good)"),
            r"\breasonabl[ey]\b",
            r"\baffordabl[ey]\b",
            r"\baveraged? priced?\b",
            r"\bmoderate(?:ly)?\b",
            r"\bmid (?:cost|pricing)\b",
        ),
        "high": (
            r"\bhigh end\b",
            r"\b(?:above|higher than) average\b",
            r"\bhigh in price\b",
            r"\bprices(?: \w+){0,5} high\b",
            r"\bnot cheap\b",
            r"\b(?:costs?|more) (?:more )?than (?:the )?(?:average|others|most)\b",
            r"\b(?:elite|exclusive|luxury|fancy)\b",
        ),
        "less than £20": (r"\b20 pounds\b", r"£20(?! £?25)\b"),
        "more than £30": (r"£30\b", r"\b30 pounds\b"),
    },
    "customer rating": {
        "low": (
            rf"\b{_RATING} for @(?: \w+)? (?:is|are) (?:low|poor)\b",
            r"\b(?:not|n t) (?:got )?(?:a |very |have )*(?:good|great|well|high)\b",
            r"\b(?:disappointing|subpar|badly|bad|poor)\b",
        ),
        "average": (
            r"\baverage\b",
            r"\bsatisfactory\b",
            _rating(r"\b(?:decent|reasonable|mid ranged?|moderate|ok|okay|fair|middling|medium|so so|mid|good|well)"),
            r"\baveragely?\b",
            r"\bdecent\b",
            r"\bwell (?:liked|reviewed|rated)\b",
        ),
        "high": (
            _rating(
                rf"{_NOT}\b(?:great|good|well|positive|above average|favou?rabl[ey]|amazing|wonderful|exceptional)"
            ),
            rf"{_NOT}\bwell (?:liked|regarded|reviewed|received|loved|rated)\b",
            r"\bhigh(?:ly)? (?:quality|popular|liked)\b",
            r"\b(?:excellent|popular|great|fantastic|top notch)\b",
            r"\blove[ds]?\b",
        ),
    },
    "area": {
        "riverside": (r"\brivers?\b", r"\bwater ?(?:front|side)\b"),
        "city centre": (r"\bcentral(?:ly)?\b", r"\bcity\b", r"\b(?:centre|center)\b(?! of)"),
    },
}


def _compile(values: dict[str, dict[str, tuple[str, ...]]]) -> dict[str, dict[str, re.Pattern[str]]]:
    return {
        slot: {value: re.compile("|".join(p)) for value, p in by_value.items()} for slot, by_value in values.items()
    }


STRONG, WEAK = _compile(_STRONG), _compile(_WEAK)

# Taken out before the area is read: what is north of the city centre is not in it.
OUTSIDE = re.compile(
    r"\b(?:north|south|east|west|outside|outskirts|edge|end|out|away|far|minutes|just off)"
    r"(?: (?:of|from|to|in))* (?:the )?(?:city|town)\b(?: (?:centre|center)\b)?"
)

_FAMILY = (
    r"(?:(?:famil(?:y|ies|iar)|child(?:ren)?(?: s)?|childs|kids?(?: s)?|toddlers?|youngsters?)"
    r"|all ages|all the family|young and old|everyone)"
)
MENTIONS_FAMILY = re.compile(rf"\b{_FAMILY}\b")
_DENIAL = (
    r"(?:not|non|none|bad|no|n t|isn t|isnt|doesn t|don t|aren t|won t|wouldn t|never|without|lack(?:s|ing)?|"
    r"unsuitable|inappropriate|un|nor|cannot|can t|neither|free of|free from|discourages?|prohibits?|refuses?|"
    r"leave|avoid|dislikes?|except|away from|unwelcoming)"
)
_STOP = r"(?!(?:and|but|it|is|while|although|though|located|which|situated|they|,|\.|;|near)\b|[,.;] )"
DENIES_FAMILY = re.compile(
    rf"\b{_DENIAL}(?: {_STOP}\S+){{0,7}}? {_FAMILY}\b|"
    rf"\b{_FAMILY}(?: (?:is|are|friendly|oriented|or|families|family|and|children|kids|it|s)){{0,4}} "
    r"(?:not|aren t|isn t|un|never|unfriendly|un friendly|unwelcome|prohibited|forbidden|banned|no)\b|"
    r"\badults?\b(?! and (?:child|kid))|"
    rf"\bunfriendly\b|\b{_FAMILY} (?:friendly )?: ?no\b|\bgrown ups?\b|\bchild free\b|\bkid free\b|\bchildfree\b"
)
