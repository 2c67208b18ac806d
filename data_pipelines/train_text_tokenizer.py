r"""Makes a small text tokenizer out of texts.

    python -m data_pipelines.train_text_tokenizer --texts=texts.txt --output=TOKENIZER --kind=characters

writes a folder that `lvm_jax.data.text_tokenizer.TextTokenizer` reads. `characters` gives every character of the texts
a token, which small models learn fastest; texts of `--whole`, such as the questions that are asked, have one each too.
`bytes` trains a byte-level BPE of `--vocab_size` tokens, in which digits stand alone; it can spell any text. In place
of `--texts`, `--shards` takes the conversations of image-text shards, and `--pools` the words that pools train on.
"""

import re
from collections.abc import Iterable, Iterator, Sequence

from absl import flags
from etils import epath

from lvm_jax import cli
from lvm_jax.data.image_text.conversation import PLACEHOLDER
from lvm_jax.data.image_text.store import ImageTextStore
from lvm_jax.data.image_text.templates import template_named
from lvm_jax.data.in_context.pool import PoolStore
from lvm_jax.data.text_tokenizer import Settings, TextTokenizer, save_folder
from lvm_jax.errors import UserError

UNKNOWN = "<unk>"
BYTES = 256
# What the settings name, by template.
SPECIALS = {
    "opt": {"pad": "<pad>", "eos": "</s>", "bos": "</s>"},
    "vicuna_v1": {"pad": "<pad>", "eos": "</s>", "bos": "<s>"},
    "mpt": {"pad": "<|endoftext|>", "eos": "<|im_end|>", "turn_start": "<|im_start|>"},
}
PICTURE = {"image_patch": "<imgpad>", "image_start": "<img>", "image_end": "</img>"}


def small_settings(template: str) -> Settings:
    """The special tokens of a tokenizer that is made here."""
    template_named(template)
    return Settings(**SPECIALS[template], **PICTURE, template=template)


def character_table(texts: Iterable[str], settings: Settings, *, whole: Sequence[str] = ()) -> str:
    """`tokenizer.json` of a table with one token a character: special tokens, then the characters in order of code.

    What the template writes has its characters too.

    Args:
      texts: whose characters get a token each.
      settings: name the special tokens and the template.
      whole: texts that are one token wherever they occur, the longest first; behind the characters.

    Raises:
      UserError: the texts are empty, or one of `whole` is no longer than a character.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    characters = {character for text in texts for character in text}
    if not characters:
        raise UserError("the texts are empty: give some")
    for text in whole:
        if len(text) < 2:
            raise UserError(f"{text!r} is to be one token, and is one: name longer texts")
    characters = sorted({*characters, *template_named(settings.template).words, *settings.system})
    specials = _specials(settings)
    longest_first = sorted(set(whole), key=lambda text: (-len(text), text))
    table = {
        token: id for id, token in enumerate((*specials, UNKNOWN, *characters, *longest_first))
    }
    tokenizer = Tokenizer(models.WordLevel(table, unk_token=UNKNOWN))
    pieces = "|".join([*map(re.escape, longest_first), r"[\s\S]"])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pieces), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(specials)
    return tokenizer.to_str()


def byte_level(texts: Iterable[str], vocab_size: int, settings: Settings) -> str:
    """`tokenizer.json` of a byte-level BPE with `vocab_size` tokens, or fewer if the texts have no more pairs.

    Raises:
      UserError: there is no room for the 256 bytes and the special tokens.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    specials = _specials(settings)
    if vocab_size < BYTES + len(specials):
        raise UserError(
            f"vocab_size is {vocab_size}: it must be at least {BYTES + len(specials)}, the bytes and the special tokens"
        )
    tokenizer = Tokenizer(models.BPE())
    # Digits alone: numbers of a chart are read digit by digit, however often a certain number occurs.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=specials,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer.to_str()


def main() -> None:
    """The command line."""
    args = flags.FLAGS
    if sum(map(bool, (args.texts, args.shards, args.pools))) != 1:
        raise UserError("give one of --texts, --shards and --pools: where the texts are")
    texts = [line for path in args.texts or () for line in _lines(path)]
    if args.shards:
        texts = list(conversations_of(args.shards))
    if args.pools:
        texts = words_of_pools(args.pools)
    settings = small_settings(args.template)
    if args.kind == "characters":
        content = character_table(texts, settings, whole=args.whole)
    elif args.whole:
        raise UserError("--whole goes with --kind=characters: byte pairs are learnt")
    else:
        content = byte_level(texts, args.vocab_size, settings)
    save_folder(args.output, content, settings)
    tokenizer = TextTokenizer(args.output)
    print(f"{args.output}: {tokenizer.size} tokens, fingerprint {tokenizer.fingerprint}")


def conversations_of(shards: str) -> Iterator[str]:
    """All questions and answers of image-text shards, of every split, without placeholders.

    Raises:
      UserError: no shards, or a damaged record.
    """
    for split in ("train", "validation"):
        store = ImageTextStore(shards, split)
        for i in range(len(store)):
            record = store.record(i)
            if record is None:
                raise UserError(f"record {i} of the split {split!r} is damaged: build it again")
            for turn in record.conversation.turns:
                yield turn.question.replace(PLACEHOLDER, "")
                yield turn.answer or ""


def words_of_pools(pools: str) -> list[str]:
    """The captions and the classes of the training split, as rows of pairs write them.

    Raises:
      UserError: no pools.
    """
    store = PoolStore(pools, "train")
    records = [found for found in store.records(range(len(store))) if found is not None]
    return [text for one in records for text in (one.class_name, one.caption) if text]


def _specials(settings: Settings) -> list[str]:
    """The special tokens in the order of their ids, the picture's last and as published: patch, start, end."""
    named = (settings.pad, settings.eos, settings.bos, settings.turn_start)
    picture = (settings.image_patch, settings.image_start, settings.image_end)
    return list(dict.fromkeys(token for token in (*named, *picture) if token))


def _lines(path: str) -> list[str]:
    try:
        # Line ends too, except of the last line: a page's text has them.
        return epath.Path(path).read_text().splitlines(keepends=True)
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 ({error}): convert it") from error


def _define_flags() -> None:
    flags.DEFINE_list("texts", None, "text files in UTF-8")
    flags.DEFINE_string("shards", None, "image-text shards, in place of texts")
    flags.DEFINE_multi_string("whole", [], "of the kind `characters`: a text that is one token")
    flags.DEFINE_string("pools", None, "pools for in-context pairs, in place of texts")
    flags.DEFINE_string("output", None, "folder of the tokenizer")
    flags.DEFINE_enum("kind", "characters", ["characters", "bytes"], "see above")
    flags.DEFINE_enum("template", "opt", sorted(SPECIALS), "of the rows, see docs/vary_data.md")
    flags.DEFINE_integer("vocab_size", 2048, "tokens of the kind `bytes`, special ones included")


if __name__ == "__main__":
    _define_flags()
    cli.run(main, required_flags=("output",))
