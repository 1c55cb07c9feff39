"""Streams of tokens give what decoding the whole gives: for byte-level, SentencePiece-like and WordPiece tokenizers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from gateway.errors import SourceError, Unsupported
from gateway.openai.tokenizer import HuggingFaceTokenizer

CORPUS = ["the quick brown fox", "jumps over  the lazy dog", "naïve café ☃ 日本語"]


def save(tokenizer: Tokenizer, folder: Path) -> HuggingFaceTokenizer:
    tokenizer.add_special_tokens([AddedToken("<s>", special=True), AddedToken("</s>", special=True)])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"bos_token": {"content": "<s>"}, "eos_token": "</s>", "chat_template": "{{ bos_token }}"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return HuggingFaceTokenizer(folder)


def sentencepiece() -> Tokenizer:
    pieces = [f"<0x{byte:02X}>" for byte in range(256)] + ["▁", *"abcdefghijklmnopqrstuvwxyz", "▁the", "▁f", "he", "ï"]
    vocab = {piece: index for index, piece in enumerate(["<unk>", *pieces])}
    merges = [("h", "e"), ("▁", "f")]
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


def byte_level() -> Tokenizer:
    vocab = {piece: index for index, piece in enumerate([*sorted(pre_tokenizers.ByteLevel.alphabet()), "he", "Ġt"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[("h", "e"), ("Ġ", "t")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens(["日本"])
    return tokenizer


def word_piece() -> Tokenizer:
    pieces = ["[UNK]", *"abcdefghijklmnopqrstuvwxyz", *[f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz"], "the", "##he"]
    tokenizer = Tokenizer(models.WordPiece({piece: index for index, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    return tokenizer


KINDS = {"byte_level": byte_level, "sentencepiece": sentencepiece, "word_piece": word_piece}


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> HuggingFaceTokenizer:
    return save(KINDS[request.param](), tmp_path_factory.mktemp(request.param))


def pieces(ids: list[int], cuts: list[int]) -> list[list[int]]:
    """`ids` in runs of these lengths."""
    runs: list[list[int]] = []
    while ids:
        length = cuts[len(runs) % len(cuts)]
        runs.append(ids[:length])
        ids = ids[length:]
    return runs


@given(text=st.text(max_size=30) | st.sampled_from(CORPUS), cuts=st.lists(st.integers(1, 4), min_size=1, max_size=5))
def test_a_stream_gives_what_the_whole_gives(tokenizer: HuggingFaceTokenizer, text: str, cuts: list[int]) -> None:
    ids = tokenizer.encode(text)
    stream = tokenizer.decode_stream()
    assert "".join([stream.step(run) for run in pieces(ids, cuts)]) + stream.flush() == tokenizer.decode(ids)


@given(words=st.lists(st.sampled_from(["the fox", "</s>", "<s>", "日本", " x"]), max_size=6))
def test_special_tokens_give_no_text(tokenizer: HuggingFaceTokenizer, words: list[str]) -> None:
    ids = tokenizer.encode("".join(words))
    stream = tokenizer.decode_stream()
    shown = "".join([stream.step([token]) for token in ids]) + stream.flush()
    assert shown == tokenizer.decode(ids)
    assert "</s>" not in shown


def test_a_byte_level_stream_survives_any_tokens(tmp_path: Path) -> None:
    tokenizer = save(byte_level(), tmp_path)

    @given(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=30), st.integers(1, 3))
    def same(ids: list[int], length: int) -> None:
        stream = tokenizer.decode_stream()
        shown = "".join([stream.step(run) for run in pieces(ids, [length])]) + stream.flush()
        assert shown == tokenizer.decode(ids)

    same()


def test_bytes_of_tokens(tmp_path: Path) -> None:
    tokenizer = save(byte_level(), tmp_path)
    ids = tokenizer.encode("the é", add_special_tokens=False)
    assert b"".join(map(tokenizer.token_bytes, ids)) == "the é".encode()
    assert tokenizer.token_text(ids[-1]) == "\ufffd"
    (end,) = tokenizer.encode("</s>")
    assert (tokenizer.token_text(end), tokenizer.eos_token_ids) == ("</s>", {end})
    assert tokenizer.token_bytes(10**6) == b""


def test_bytes_of_sentencepiece_tokens(tmp_path: Path) -> None:
    tokenizer = save(sentencepiece(), tmp_path)
    assert b"".join(map(tokenizer.token_bytes, tokenizer.encode("the ☃"))) == " the ☃".encode()


def test_end_ids_come_from_every_file_that_knows_them(tmp_path: Path) -> None:
    save(byte_level(), tmp_path)
    own = HuggingFaceTokenizer(tmp_path).eos_token_ids
    (tmp_path / "config.json").write_text('{"eos_token_id": 5}')
    assert HuggingFaceTokenizer(tmp_path).eos_token_ids == own | {5}
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [7, 8]}')
    assert HuggingFaceTokenizer(tmp_path).eos_token_ids == own | {7, 8}


def test_templates_come_from_a_file_or_a_setting(tmp_path: Path) -> None:
    assert save(byte_level(), tmp_path).render_chat([]) == "<s>"
    named = [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    assert HuggingFaceTokenizer(tmp_path).render_chat([]) == "D"
    (tmp_path / "chat_template.jinja").write_text("F")
    assert HuggingFaceTokenizer(tmp_path).render_chat([]) == "F"
    (tmp_path / "chat_template.jinja").unlink()
    (tmp_path / "tokenizer_config.json").write_text("{}")
    with pytest.raises(Unsupported):
        HuggingFaceTokenizer(tmp_path).render_chat([])


def test_broken_folders_name_their_file(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"tokenizer\.json: cannot be read"):
        HuggingFaceTokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(SourceError, match=r"tokenizer\.json: is no tokenizer"):
        HuggingFaceTokenizer(tmp_path)
    save(byte_level(), tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(SourceError, match=r"tokenizer_config\.json"):
        HuggingFaceTokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    with pytest.raises(SourceError, match=r"tokenizer_config\.json: is missing"):
        HuggingFaceTokenizer(tmp_path)
