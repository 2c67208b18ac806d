"""Small text tokenizers: the committed table of characters, and others made on the spot."""

import dataclasses
import json
import pathlib

from lvm_jax.data.text_tokenizer import (
    SETTINGS_FILE,
    TOKENIZER_FILE,
    Settings,
    TextTokenizer,
    save_folder,
)

FOLDER = pathlib.Path(__file__).parent / "fixtures" / "text_tokenizer"
OPT = Settings(**json.loads((FOLDER / SETTINGS_FILE).read_text()))
VICUNA = dataclasses.replace(OPT, template="vicuna_v1", bos="<s>")
MPT = dataclasses.replace(
    OPT, template="mpt", bos="", eos="<|im_end|>", turn_start="<|im_start|>", system="Obey."
)


def with_settings(folder: pathlib.Path, settings: Settings, content: str = "") -> TextTokenizer:
    """The committed table, or another `tokenizer.json`, with these settings."""
    save_folder(folder, content or (FOLDER / TOKENIZER_FILE).read_text(), settings)
    return TextTokenizer(folder)


def pieces_of_words() -> str:
    """`tokenizer.json` in the way of SentencePiece: a space before every text, bytes for what it lacks."""
    from tokenizers import Tokenizer, decoders, models, normalizers

    words = ["▁", "▁s", "▁se", "▁see", "s", "e", "A", ":", "U", "R", "I", "T", "N", "S", "E", "\n"]
    table = ["<unk>", "<pad>", "<s>", "</s>", "<imgpad>", "<img>", "</img>"]
    table += [f"<0x{byte:02X}>" for byte in range(256)] + words
    merges = [("▁", "s"), ("▁s", "e"), ("▁se", "e")]
    model = models.BPE(
        {token: id for id, token in enumerate(table)},
        merges,
        unk_token="<unk>",
        byte_fallback=True,
        fuse_unk=True,
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens(["<pad>", "<s>", "</s>", "<imgpad>", "<img>", "</img>"])
    return tokenizer.to_str()
