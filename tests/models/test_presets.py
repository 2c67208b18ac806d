import jax
import pytest
from flax import nnx

from lvm_jax.errors import UserError
from lvm_jax.models import Decoder, Llama, presets
from lvm_jax.models.decoder.config import count_parameters, train_flops_per_token
from lvm_jax.models.decoder.moe_config import MoEConfig
from lvm_jax.vocabulary import Vocabulary

# Computed from the official configurations: name, parameters, parameters without vocabulary tables,
# KV cache bytes a token in bf16, GFLOP a token of training at 4096 tokens with causal attention.
PUBLISHED = [
    ("debug", 2_451_072, 328_320, 1_024, 0.01),
    ("100m", 116_974_720, 106_360_960, 56_320, 1.016),
    ("300m", 290_968_576, 273_986_560, 90_112, 2.248),
    ("600m", 648_396_288, 622_923_264, 135_168, 4.644),
    ("1b", 1_147_119_616, 1_113_155_584, 180_224, 7.888),
    ("3b", 3_274_742_400, 3_221_673_600, 332_800, 21.533),
    ("7b", 6_544_199_680, 6_476_271_616, 524_288, 42.281),
    ("13b", 12_773_094_400, 12_688_184_320, 819_200, 81.41),
    ("20b", 20_722_710_528, 20_620_818_432, 1_130_496, 130.97),
    ("30b", 32_213_342_720, 32_102_959_616, 1_597_440, 202.76),
]


@pytest.mark.parametrize(("name", "total", "inner", "cache_bytes", "gflop"), PUBLISHED)
def test_published_sizes(name, total, inner, cache_bytes, gflop):
    config = presets.llama(name, dtype="bfloat16")
    assert config.vocab_size == 8292
    assert count_parameters(config) == total
    assert count_parameters(config, embeddings=False) == inner
    assert train_flops_per_token(config, 4096) / 1e9 == pytest.approx(gflop, abs=6e-3, rel=1e-4)

    abstract = nnx.eval_shape(lambda: Llama(config, rngs=nnx.Rngs(0)))
    padding = 2 * (config.padded_vocab_size - config.vocab_size) * config.hidden_size
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(abstract))) == total + padding
    cache = jax.eval_shape(lambda: abstract.init_cache(1, 1))
    assert sum(leaf.size * 2 for leaf in jax.tree.leaves(cache.layers)) == cache_bytes


# As transformers counts them: vocabulary, learned positions, and a tied head once.
LANGUAGE = [
    (presets.opt, "125m", 125_239_296),
    (presets.opt, "1.3b", 1_315_758_080),
    (presets.opt, "2.7b", 2_651_596_800),
    (presets.opt, "6.7b", 6_658_473_984),
    (presets.gpt2, "small", 124_439_808),
    (presets.gpt2, "medium", 354_823_168),
    (presets.gpt2, "large", 774_030_080),
    (presets.gpt2, "xl", 1_557_611_200),
]


@pytest.mark.parametrize(("preset", "name", "total"), LANGUAGE)
def test_published_sizes_of_language_models(preset, name, total):
    config = preset(name)
    assert count_parameters(config) == total
    state = nnx.state(Decoder.abstract(config))
    padding = (config.padded_vocab_size - config.vocab_size) * config.hidden_size
    assert sum(leaf.size for leaf in jax.tree.leaves(state)) == total + padding


def test_vocabulary_and_positions_of_language_models_may_be_others():
    """Vary reads 4096 tokens and has words of its own."""
    config = presets.opt("125m", vocab_size=50268, max_position_embeddings=4096)
    assert count_parameters(config) == 126_809_088
    assert Decoder.abstract(config).positions.table.shape == (4098, 768)


def test_special_ids_follow_the_codes():
    config = presets.llama("quickstart")
    assert (config.vocab_size, config.bos_token_id, config.eos_token_id, config.pad_token_id) == (
        612,
        512,
        513,
        514,
    )
    config = presets.llama("debug", vocab_size=1124)
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (1024, 1025, 1026)
    assert (
        presets.llama(
            "debug", vocab_size=10, bos_token_id=7, eos_token_id=8, pad_token_id=9
        ).bos_token_id
        == 7
    )


def test_our_own_sizes_are_small_enough_for_two_cores():
    assert 5e5 < count_parameters(presets.llama("quickstart")) < 1e6
    assert 5e6 < count_parameters(presets.llama("small")) < 6e6


@pytest.mark.parametrize("name", ["quickstart", "small"])
def test_our_own_decoder_reads_the_codes_of_our_own_tokenizer(name: str):
    vqgan, llama = presets.vqgan(name), presets.llama(name)
    assert llama.vocab_size == Vocabulary.lvm(vqgan.num_embeddings).size
    assert llama.max_position_embeddings % vqgan.tokens_per_image == 0


def test_key_value_heads_follow_the_query_heads_unless_given():
    assert presets.llama("debug", num_attention_heads=8).num_key_value_heads == 8
    assert presets.llama("debug", num_key_value_heads=2).num_key_value_heads == 2


def test_unknown_names_are_refused():
    with pytest.raises(UserError, match=r"'2b' does not exist; known: debug, 100m, "):
        presets.llama("2b")
    with pytest.raises(UserError, match=r"no field 'hiden_size'"):
        presets.llama("debug", hiden_size=1)
    with pytest.raises(UserError, match=r"OPT preset '350m' does not exist; known: debug, 125m"):
        presets.opt("350m")
    with pytest.raises(UserError, match=r"GPT-2 preset 'small' has no field 'n_embd'"):
        presets.gpt2("small", n_embd=1)


@pytest.mark.parametrize(
    ("bins", "router", "total"),
    [
        (0, "token", 324_407_808),
        (1001, "token", 325_179_648),
        (0, "attribute", 324_458_496),
        (1001, "attribute", 325_230_336),
    ],
)
def test_the_published_size_of_the_unified_decoder(bins, router, total):
    vocabulary = Vocabulary.unified(bins=bins)
    config = presets.unified("published", vocabulary, moe=MoEConfig(router=router))
    assert count_parameters(config) == total
    assert (config.rms_norm_eps, config.max_position_embeddings) == (1e-12, 2060)
    assert (config.dropout, config.attention_dropout, config.tie_word_embeddings) == (
        0.1,
        0.1,
        True,
    )
    with pytest.raises(UserError, match="unified preset 'large' does not exist; known: debug"):
        presets.unified("large", vocabulary)
