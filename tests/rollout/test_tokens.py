from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("transformers", reason="needs the extra `train`")

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from srl_swe.errors import UserError
from srl_swe.rollout.tokens import TokenCounter, token_counter
from srl_swe.types import Message

pytestmark = pytest.mark.slow


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA_2 = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}{{ m['content'] | trim }} </s>"
    "{% else %}<s>[INST] {{ m['content'] }} [/INST]{% endif %}{% endfor %}"
)
CORPUS = [
    "def parse(text):\n    return text.split()\n\n\n" * 3,
    "The quick brown fox's jump, 1234 ﬁnd naïve café  double  spaces\t\ttabs",
    "<tool_call> user assistant system [INST] Hello World hello world </s> foo foobar",
]
WORDS = Regex(
    r"'s|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def train(
    model: models.Model,
    trainer: trainers.Trainer,
    template: str,
    added: Sequence[AddedToken] = (),
    **parts: Any,
) -> Any:
    """A fast tokenizer trained on the corpus; ``parts`` are its normalizer and so on."""
    tokenizer = Tokenizer(model)
    for name, part in parts.items():
        setattr(tokenizer, name, part)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_tokens(list(added))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    fast.chat_template = template
    return fast


def qwen_like() -> Any:
    """Byte-level BPE behind a regex, NFC; a longer token begins as a shorter one does."""
    bytewise = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return train(
        models.BPE(),
        trainers.BpeTrainer(
            vocab_size=600,
            special_tokens=["<|im_start|>", "<|im_end|>", "<|im_end|>>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
        CHATML,
        [AddedToken("<tool_call>", normalized=False)],
        normalizer=normalizers.NFC(),
        pre_tokenizer=pre_tokenizers.Sequence(
            [pre_tokenizers.Split(WORDS, behavior="isolated"), bytewise]
        ),
        post_processor=processors.ByteLevel(trim_offsets=False),
    )


def slow() -> Any:
    tokenizer = ByT5Tokenizer()
    tokenizer.chat_template = LLAMA_2
    return tokenizer


PIECES = [
    *("<|im_start|>", "<|im_end|>", "<|im_end|>>", "<tool_call>", "[INST]", "[/INST]", "</s>"),
    *("<s>", "foo", "foobar", "hello", "Hello", " ", "  ", "\n", "\t", "e\u0301", "ﬁ", "'s", "12"),
]
texts = st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=12).map("".join)


@st.composite
def chats(draw: st.DrawFn) -> list[Message]:
    roles = ["user", *draw(st.lists(st.sampled_from(["assistant", "user"]), max_size=4))]
    return [{"role": role, "content": draw(texts)} for role in roles]  # type: ignore[typeddict-item]


@pytest.fixture(scope="module")
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return request.param()


@pytest.mark.parametrize(
    "tokenizer",
    [
        pytest.param(qwen_like, id="Qwen"),
        pytest.param(  # only a text's very first word gets a space, and added tokens take spaces
            lambda: train(
                models.Unigram(),
                trainers.UnigramTrainer(
                    vocab_size=120,
                    special_tokens=["<unk>", "<s>", "</s>"],
                    unk_token="<unk>",
                    show_progress=False,
                ),
                LLAMA_2,
                [
                    AddedToken("[INST]", lstrip=True, normalized=False),
                    AddedToken("[/INST]", rstrip=True, normalized=False),
                    AddedToken("foo", single_word=True, normalized=False),
                    AddedToken("hello", normalized=True),
                ],
                normalizer=normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()]),
                pre_tokenizer=pre_tokenizers.Metaspace(prepend_scheme="first"),
            ),
            id="Metaspace at the first",
        ),
        pytest.param(  # as Llama 2 was: the normalizer puts a space before every piece
            lambda: train(
                models.BPE(unk_token="<unk>"),
                trainers.BpeTrainer(
                    vocab_size=300, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False
                ),
                LLAMA_2,
                normalizer=normalizers.Sequence(
                    [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
                ),
            ),
            id="Llama 2",
        ),
        pytest.param(
            lambda: train(
                models.WordPiece(unk_token="[UNK]"),
                trainers.WordPieceTrainer(
                    vocab_size=200, special_tokens=["[UNK]", "<|im_start|>"], show_progress=False
                ),
                CHATML,
                [AddedToken("<|im_end|>", lstrip=True, rstrip=True, special=True)],
                normalizer=normalizers.BertNormalizer(lowercase=True),
                pre_tokenizer=pre_tokenizers.BertPreTokenizer(),
            ),
            id="BERT",
        ),
        pytest.param(slow, id="slow"),
    ],
    indirect=True,
    scope="module",
)
@given(chat=chats())
@settings(max_examples=150)
def test_counting_segments_is_counting_the_whole(tokenizer: Any, chat: list[Message]) -> None:
    counter = TokenCounter(tokenizer)
    asks = chat[-1]["role"] != "assistant"
    whole = tokenizer.apply_chat_template(chat, add_generation_prompt=asks, return_dict=False)
    assert counter(chat) == len(whole)
    assert counter(chat) == len(whole), "nor does it change once segments are remembered"


def test_truncation_and_padding_of_a_tokenizers_file_do_not_count() -> None:
    tokenizer = qwen_like()
    tokenizer.backend_tokenizer.enable_truncation(3)
    tokenizer.backend_tokenizer.enable_padding(length=50)
    chat: list[Message] = [{"role": "user", "content": "The quick brown fox"}]
    assert TokenCounter(tokenizer)(chat) == TokenCounter(qwen_like())(chat)


def test_the_digest_is_of_vocabulary_and_template() -> None:
    one, other = qwen_like(), qwen_like()
    assert TokenCounter(one).digest == TokenCounter(other).digest
    other.chat_template = LLAMA_2
    assert TokenCounter(one).digest != TokenCounter(other).digest
    assert TokenCounter(slow()).digest


def test_a_folder_that_is_no_tokenizer_or_cannot_chat_is_a_mistake(tmp_path: Any) -> None:
    with pytest.raises(UserError, match="no tokenizer"):
        token_counter(str(tmp_path / "nowhere"))
    mute = qwen_like()
    mute.chat_template = None
    mute.save_pretrained(tmp_path / "mute")
    with pytest.raises(UserError, match="no chat template"):
        token_counter(str(tmp_path / "mute"))
