"""Instructions that code can check, in IFEval's names and keywords (Zhou et al. 2023, "Instruction-Following
Evaluation for Large Language Models"). Pure functions over texts; written for this project."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

Check = Callable[..., bool]
"""Called with the answer and the instruction's keywords; those that are None are left out."""


class Unknown(ValueError):
    """An instruction that nothing here checks."""


def follows(instruction: str, text: str, keywords: Mapping[str, Any]) -> bool:
    """Whether `text` does what the instruction says. An empty text follows nothing. Raises Unknown."""
    if instruction not in CHECKS:
        raise Unknown(f"no check for {instruction!r}; there are: {', '.join(sorted(CHECKS))}")
    given = {key: value for key, value in keywords.items() if value is not None}
    return bool(text.strip()) and CHECKS[instruction](text, **given)


def loosely(instruction: str, text: str, keywords: Mapping[str, Any]) -> bool:
    """As `follows`, but a first or last line and marks of emphasis may be too much (IFEval's loose reading)."""
    lines = text.split("\n")
    cut = ["\n".join(part).strip() for part in (lines, lines[1:], lines[:-1], lines[1:-1])]
    return any(follows(instruction, each, keywords) for part in cut for each in (part, part.replace("*", "")))


def _count(found: int, wanted: int, relation: str) -> bool:
    return found < wanted if relation == "less than" else found >= wanted


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text)


def _sentences(text: str) -> list[str]:
    """Ends in . ! or ?, before a blank; not after a title or a single letter."""
    guarded = re.sub(r"\b(Mr|Mrs|Ms|Dr|Prof|St|vs|etc|e\.g|i\.e|[A-Z])\.", lambda mark: mark[0][:-1], text)
    return [part for part in re.split(r"(?<=[.!?])[\"')\]]*\s+", guarded.strip()) if part.strip()]


def _keywords(text: str, keywords: list[str]) -> bool:
    return all(re.search(re.escape(word), text, re.IGNORECASE) for word in keywords)


def _forbidden(text: str, forbidden_words: list[str]) -> bool:
    return not any(re.search(rf"\b{re.escape(word)}\b", text, re.IGNORECASE) for word in forbidden_words)


def _frequency(text: str, keyword: str, frequency: int, relation: str = "at least") -> bool:
    return _count(len(re.findall(re.escape(keyword), text, re.IGNORECASE)), frequency, relation)


def _letters(text: str, letter: str, let_frequency: int, let_relation: str = "at least") -> bool:
    return _count(text.lower().count(letter.lower()), let_frequency, let_relation)


SCRIPTS = {
    "ar": "ARABIC", "bg": "CYRILLIC", "bn": "BENGALI", "fa": "ARABIC", "gu": "GUJARATI", "hi": "DEVANAGARI",
    "kn": "KANNADA", "ko": "HANGUL", "mr": "DEVANAGARI", "ne": "DEVANAGARI", "pa": "GURMUKHI", "ru": "CYRILLIC",
    "ta": "TAMIL", "te": "TELUGU", "th": "THAI", "ur": "ARABIC", "zh": "CJK", "ja": "CJK",
}  # fmt: skip
COMMON = {
    "en": "the of and to in is that it for with as was on are be this",
    "de": "der die das und ist ein eine nicht mit auf für zu den von im",
    "fr": "le la les des et est un une dans que pour qui pas sur du",
    "es": "el la los las de y es un una en que por para con del se",
    "it": "il la le di e è un una in che per con non del della si",
    "pt": "o a os as de e é um uma em que para com não do da se",
    "vi": "và là của một các trong có cho không được những với này",
    "fi": "ja on ei se että oli hän mutta joka ovat kun niin myös",
    "sw": "na ya wa ni kwa katika hii za la kuwa yake cha huu",
}
"""Words that hardly any text of a language is without."""


def _language(text: str, language: str) -> bool:
    """By script where a language has its own, else by its commonest words against other languages'."""
    letters = [character for character in text if character.isalpha()]
    if language in SCRIPTS:
        own = sum(unicodedata.name(character, "").startswith(SCRIPTS[language]) for character in letters)
        return bool(letters) and own > len(letters) / 2
    words = [word.lower() for word in re.findall(r"[^\W\d_]+", text)]
    told = {name: sum(word in common.split() for word in words) for name, common in COMMON.items()}
    if language not in told:
        raise Unknown(f"no check for the language {language!r}")
    return told[language] > 0 and told[language] == max(told.values())


def _number_words(text: str, num_words: int, relation: str = "at least") -> bool:
    return _count(len(_words(text)), num_words, relation)


def _number_sentences(text: str, num_sentences: int, relation: str = "at least") -> bool:
    return _count(len(_sentences(text)), num_sentences, relation)


def _number_paragraphs(text: str, num_paragraphs: int) -> bool:
    """Between lines of three asterisks."""
    parts = re.split(r"\s?\*\*\*\s?", text)
    inner = parts[(not parts[0].strip()) : len(parts) - (not parts[-1].strip())]
    return all(part.strip() for part in inner) and len(inner) == num_paragraphs


def _nth_paragraph(text: str, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    """Between empty lines."""
    parts = [part for part in re.split(r"\n\n", text) if part.strip()]
    if len(parts) != num_paragraphs or not 1 <= nth_paragraph <= len(parts):
        return False
    found = re.match(r"\W*(\w+)", parts[nth_paragraph - 1])
    return found is not None and found[1].lower() == first_word.lower()


def _postscript(text: str, postscript_marker: str = "P.S.") -> bool:
    letters = [re.escape(letter) for letter in postscript_marker if letter.isalpha()]
    return re.search(r"(?im)^\s*" + r"\.?\s?".join(letters), text) is not None


def _placeholders(text: str, num_placeholders: int) -> bool:
    return len(re.findall(r"\[.*?\]", text)) >= num_placeholders


def _bullets(text: str, num_bullets: int) -> bool:
    return len(re.findall(r"(?m)^\s*(?:\*(?!\*)|-)\s*\S.*$", text)) == num_bullets


def _constrained(text: str) -> bool:
    return any(f"My answer is {answer}." in text for answer in ("yes", "no", "maybe"))


def _highlights(text: str, num_highlights: int) -> bool:
    marked = re.findall(r"\*\*([^\n*]+)\*\*|\*([^\n*]+)\*", text)
    return sum(bool((double or single).strip()) for double, single in marked) >= num_highlights


def _sections(text: str, num_sections: int, section_spliter: str = "Section") -> bool:
    return len(re.findall(rf"\s?{re.escape(section_spliter)}\s?\d+\s?", text)) >= num_sections


def _json(text: str) -> bool:
    bare = re.sub(r"^```(?:json|JSON|Json)?\s*|\s*```$", "", text.strip())
    try:
        json.loads(bare)
    except ValueError:
        return False
    return True


def _title(text: str) -> bool:
    return any(found.strip() for found in re.findall(r"<<([^\n]+?)>>", text))


def _two(text: str) -> bool:
    parts = text.split("******")
    inner = [part.strip() for part in parts]
    return len(inner) == 2 and all(inner) and inner[0] != inner[1]


def _repeat(text: str, prompt_to_repeat: str) -> bool:
    return text.strip().lower().startswith(prompt_to_repeat.strip().lower())


def _ends(text: str, end_phrase: str) -> bool:
    return text.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def _capital_words(text: str, capital_frequency: int, capital_relation: str = "at least") -> bool:
    capitals = [word for word in re.findall(r"[\w'-]+", text) if word.isupper()]
    return _count(len(capitals), capital_frequency, capital_relation)


def _quoted(text: str) -> bool:
    bare = text.strip()
    return len(bare) > 1 and bare[0] == bare[-1] == '"'


def _no_comma(text: str) -> bool:
    return "," not in text


CHECKS: Mapping[str, Check] = {
    "keywords:existence": _keywords,
    "keywords:forbidden_words": _forbidden,
    "keywords:frequency": _frequency,
    "keywords:letter_frequency": _letters,
    "language:response_language": _language,
    "length_constraints:number_words": _number_words,
    "length_constraints:number_sentences": _number_sentences,
    "length_constraints:number_paragraphs": _number_paragraphs,
    "length_constraints:nth_paragraph_first_word": _nth_paragraph,
    "detectable_content:postscript": _postscript,
    "detectable_content:number_placeholders": _placeholders,
    "detectable_format:number_bullet_lists": _bullets,
    "detectable_format:constrained_response": _constrained,
    "detectable_format:number_highlighted_sections": _highlights,
    "detectable_format:multiple_sections": _sections,
    "detectable_format:json_format": _json,
    "detectable_format:title": _title,
    "combination:two_responses": _two,
    "combination:repeat_prompt": _repeat,
    "startend:end_checker": _ends,
    "startend:quotation": _quoted,
    "change_case:capital_word_frequency": _capital_words,
    "change_case:english_capital": str.isupper,
    "change_case:english_lowercase": str.islower,
    "punctuation:no_comma": _no_comma,
}
