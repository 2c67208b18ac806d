"""What a mixture of experts is, before any array exists."""

import dataclasses
from typing import Literal

from lvm_jax.errors import UserError

# An attribute router has one row of logits for each of the 2^bits attribute values.
MOST_BITS = 12


@dataclasses.dataclass(frozen=True)
class MoEConfig:
    """The MLP "moe" of a decoder: experts, of which every token uses a few.

    An expert is GPT-2's MLP: two matrices of full size with GELU between them.

    Attributes:
      experts: E, of each such MLP.
      top_k: experts that a token uses: those of highest probability, by the softmax over all experts.
      router: what decides. "token": a matrix of the token's vector (Shazeer et al., arXiv 1701.06538, section 2.1).
        "attribute": what the token is, not what it holds (Zhu et al., arXiv 2206.04674); attributes are
        the bits of one integer a token. "none": nothing; every expert counts 1 / experts, so top_k is experts.
      attribute_bits: bits of an attribute value.
      mix: "outputs" of the chosen experts, weighted by their probabilities; or their "weights", which makes one MLP
        of them first, at the cost of one (arXiv 2206.04674). Only attributes can mix weights.
      dispatch: how a training step computes it. "capacity" gathers at most a fixed number of tokens of a row for each
        expert. "spans" knows which tokens of a row share their attributes, and decides once for all of them.
        "all_experts" computes all and drops none.
      spans: for dispatch="spans": lengths of consecutive spans of tokens of one attribute value, repeated to the end of
        the row; the same in all rows of a batch. Where that is wrong the output is NaN.
      capacity_factor: an expert takes at most top_k * tokens / experts * this of a row's tokens. Later ones are
        dropped: that expert adds nothing to them. 0: none is dropped, and an expert can take the whole row.
      renormalize: divide the probabilities of the chosen experts by their sum, as Mixtral and GShard do; otherwise they
        stay as the softmax gives them, as in V-MoE (Riquelme et al., arXiv 2106.05974, section 2.1).
      noise: in training, standard deviation of the noise on logits, times experts; 1 in V-MoE.
      balance: convention of the load-balance loss, `routers.balance_loss`: "switch" counts first choices and is 1 when
        all experts are used alike; "mixtral" counts all choices and then is top_k.
      balance_weight: of that loss, summed over layers.
      z_weight: of the mean of logsumexp(logits)^2 (Zoph et al., arXiv 2202.08906, equation 5), summed over layers.
    """

    experts: int = 8
    top_k: int = 2
    router: Literal["token", "attribute", "none"] = "token"
    attribute_bits: int = 8
    mix: Literal["outputs", "weights"] = "outputs"
    dispatch: Literal["capacity", "spans", "all_experts"] = "capacity"
    spans: tuple[int, ...] = ()
    capacity_factor: float = 1.25
    renormalize: bool = False
    noise: float = 0.0
    balance: Literal["switch", "mixtral"] = "switch"
    balance_weight: float = 0.02
    z_weight: float = 0.0

    def __post_init__(self) -> None:
        for name, value, known in (
            ("router", self.router, ("token", "attribute", "none")),
            ("mix", self.mix, ("outputs", "weights")),
            ("dispatch", self.dispatch, ("capacity", "spans", "all_experts")),
            ("balance", self.balance, ("switch", "mixtral")),
        ):
            if value not in known:
                raise UserError(f"moe {name}={value!r} does not exist; known: {', '.join(known)}")
        for name, number in (
            ("capacity_factor", self.capacity_factor),
            ("noise", self.noise),
            ("balance_weight", self.balance_weight),
            ("z_weight", self.z_weight),
        ):
            if not 0 <= number < float("inf"):
                raise UserError(f"moe {name}={number}: it must be a number of at least 0")
        self._check_router()
        self._check_dispatch()

    def _check_router(self) -> None:
        if not 1 <= self.top_k <= self.experts:
            raise UserError(
                f"moe experts={self.experts}, top_k={self.top_k}: a token uses at least 1 and at most all experts"
            )
        if self.router == "none" and self.top_k != self.experts:
            raise UserError(
                f"moe router='none' chooses nothing: set top_k={self.experts}, the number of experts"
            )
        if not 1 <= self.attribute_bits <= MOST_BITS:
            raise UserError(f"moe attribute_bits={self.attribute_bits}: it must be 1..{MOST_BITS}")

    def _check_dispatch(self) -> None:
        if self.mix == "weights" and (self.router != "attribute" or self.dispatch == "capacity"):
            raise UserError(
                f"moe mix='weights' with router={self.router!r}, dispatch={self.dispatch!r}: one set of weights serves "
                "many tokens only with router='attribute' and dispatch='spans' (or 'all_experts')"
            )
        if (self.dispatch == "spans") != bool(self.spans) or any(n < 1 for n in self.spans):
            raise UserError(
                f"moe dispatch={self.dispatch!r}, spans={self.spans}: 'spans' needs lengths of at least 1, and no "
                "other dispatch has any"
            )
        if self.dispatch == "spans" and self.router != "attribute":
            raise UserError(
                f"moe dispatch='spans' with router={self.router!r}: only attributes are equal within a span; set "
                "router='attribute'"
            )

    def loss_weights(self) -> dict[str, float]:
        """Weights of the auxiliary losses, by the names that the MLP gives them."""
        return {"load_balance": self.balance_weight, "router_z": self.z_weight}
