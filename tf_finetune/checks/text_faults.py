"""What a single text shows to be wrong with it: lost characters, markup, nothing to read. And its normal form."""

import re
import unicodedata

# UTF-8 taken for Windows-1252: the first byte of a character shows as one of these letters, the others as what stands
# at 0x80 to 0xBF. A capital in front of a quote or dots may also end a word in capitals: HYVÄ… says nothing.
_SIGNS = "".join({bytes([code]).decode(page, "ignore") for code in range(0x80, 0xC0) for page in ("cp1252", "latin-1")})
_SIGN = f"[{re.escape(_SIGNS)}]"
_LETTERS, _MARKS = "[ÂÃÄÅÐÑ]", "[‘’‚“”„…–—«»‹›]"
MOJIBAKE = re.compile(f"{_LETTERS}(?!{_MARKS}){_SIGN}|(?<![A-ZÀ-Þ]){_LETTERS}{_SIGN}|â{_SIGN}{{2}}|ð{_SIGN}{{3}}")
# Control characters that no text needs (tabs and line ends may stand in one), and a byte order mark inside.
CONTROL = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f-\x84\x86-\x9f\ufeff]")
HTML = re.compile(r"</?[a-zA-Z][a-zA-Z0-9]*(\s[^<>]*)?/?>|&([a-zA-Z]{2,8}|#\d{1,6});")
# A number, with signs and units, or one address.
NO_WORDS = re.compile(r"[-+#$€£]?\d[\d.,:/ -]*%?|(https?://|www\.)\S+", re.IGNORECASE)
LONGEST_ADDRESS = 2000

_ASCII_PUNCTUATION = {code: " " for code in range(128) if not chr(code).isalnum()}
_PUNCTUATION = re.compile(r"[\W_]+")


def faults(text: str) -> list[str]:
    """The kinds of findings a text gives rise to; none for nearly every text, which takes half a microsecond."""
    if not text or text.isspace():
        return ["blank_text"]
    found = []
    if not text.isprintable() and CONTROL.search(text):
        found.append("control_character")
    if not text.isascii():
        if "\ufffd" in text:
            found.append("replacement_character")
        if MOJIBAKE.search(text):
            found.append("mojibake")
    if ("<" in text or "&" in text) and HTML.search(text):
        found.append("html_markup")
    if len(text) < LONGEST_ADDRESS and NO_WORDS.fullmatch(text.strip()):
        found.append("no_words")
    return found


def normalised(text: str) -> str:
    """The text in NFKC and without case, every run of white space and punctuation as one space."""
    if text.isascii():
        return " ".join(text.lower().translate(_ASCII_PUNCTUATION).split())
    return _PUNCTUATION.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()
