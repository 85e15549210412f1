"""Headings and captions of the report's figures: (heading, caption) each, and paragraphs of its sections."""

from __future__ import annotations

from typing import Final

from tsprune.statistics import SEEDS

Caption = tuple[str, str]

INTERVALS: Final = "Bars and brackets are 95 % intervals over configurations."
_ABLATION = "Ablation replaces the output of a component by zero."
_CHANGE = (
    "Changes are relative changes of the geometric mean over configurations of the metric divided by "
    "Seasonal Naive's: +6 % is 6 % worse."
)
_BARS = "Bars are 95 % intervals over configurations (studentised bootstrap of log ratios)."
_AXIS = "The axis is linear near zero and logarithmic beyond."

LAYERS: Final[Caption] = (
    "Effect of each layer",
    f"Each point ablates the attention heads, the MLP, or both, of one layer. {_ABLATION} {_CHANGE} {_BARS} "
    f"{_AXIS} The dotted line marks the tolerated loss.",
)
LAYERS_COMPARED: Final[Caption] = (
    "Layers of all models by depth",
    "Each point ablates the attention heads, the MLP, or both, of one layer of one model. Depth is relative, "
    "so that models with different numbers of layers compare. Encoders have dotted lines and hollow markers. "
    f"{_ABLATION} {_CHANGE} {_AXIS}",
)
PRUNING: Final[Caption] = (
    "Pruning heads of the middle layers",
    "Heads of the middle layers are ablated in order of stable rank, from either end, or at random with the "
    "same counts per sublayer. The random line is the geometric mean over draws; its bands span the lowest "
    "to the highest draw and one standard deviation, and its bars also cover draws that were not made. "
    f"{_CHANGE} {_BARS} If stable rank identifies redundant heads, its line lies below the random bands. The "
    "table of comparisons tests this: a strategy beats random only if the interval of the difference "
    "excludes 0.",
)
FORECASTS: Final[Caption] = (
    "Forecasts before and after ablation",
    "Windows of real series: the end of the history, the true future (strongest line), and the median and "
    "10-90 % band of the forecast of the intact and of the ablated model.",
)
HEADS: Final[Caption] = (
    "Every head: stable rank and effect",
    "Left: stable rank, the squared Frobenius norm of W_Q W_K^T over its squared spectral norm. A low value "
    "means a sharp, specialised head, a high value a diffuse one. The effective variant includes factors of "
    "queries and keys that do not depend on data. Right: change of CRPS when that head alone is ablated "
    "(orange: worse). A dot marks a change that differs from 0 after Holm's correction over all heads.",
)
RANK: Final[Caption] = (
    "Does stable rank predict the effect of a head?",
    "Each point is a head: its stable rank against the change of CRPS when it alone is ablated. If diffuse "
    "heads are redundant, points fall to the right (negative Spearman correlation).",
)
MLPS: Final[Caption] = (
    "3. How important is one MLP, by architecture?",
    "Each point is one MLP ablated alone, in layer order from top to bottom; the upright line is the median "
    "of its row. The paper claims that encoder-decoder models tolerate the loss of MLPs and decoder-only "
    f"models do not. Bars are 95 % intervals. {_AXIS}",
)
TRADEOFF: Final[Caption] = (
    "Accuracy against time",
    "Each point is a model with some components physically removed: along the path of the plan search, and "
    "with whole layers removed only. Both are chosen on one half of the series. Changes of MASE and CRPS are "
    "measured on the other half (geometric mean over configurations of the ratio to Seasonal Naive; +6 % is "
    "6 % worse) with 95 % intervals over configurations (studentised bootstrap of log ratios). Time is that "
    "of a forecast of 64 windows, measured alternately with the original's, with the 95 % interval of its "
    "median. Further left is faster, lower is better.",
)

# pictures of an explanation
MECHANISM: Final[Caption] = (
    "Without sharp, diffuse and random heads",
    "The sharpest, the most diffuse, or random heads of each attention sublayer are ablated together, the "
    "same number of each. The grey band spans the means of the random draws: a line inside it has the effect "
    f"of any heads. {INTERVALS} Parroting is the correlation of the forecast with the most similar segment "
    "of its context; a merely worse forecast also parrots less, so compare the error. Seasonality is the "
    "share of forecast power at the context's dominant period and its harmonics, where the horizon holds a "
    "period. Axes with a wide range are linear near zero and logarithmic beyond.",
)
MECHANISM_LEAD: Final = (
    "The paper's third mechanism: sharp heads drive context parroting and seasonality; diffuse heads smooth "
    "and are redundant. Sharpness is measured on the attention in these windows; stable rank predicts it "
    "from the weights. A claim is a list of statements, all of which must be shown. Each change without "
    "sharp or diffuse heads is compared with the change without as many random heads of the same sublayers "
    "(equal size) and, for the traits, without random heads that cost as much error (equal damage), averaged "
    "over the shares ablated. Intervals are over configurations and random draws. The claims about a model "
    "are one family of tests: a claim is decided if its Holm-corrected p is at most 0.05 under each of "
    f"{SEEDS} bootstrap seeds."
)
CHAOS_LEAD: Final = (
    "Chaotic systems nearly return to earlier states and then diverge: copying is hard to beat for a while "
    "(arXiv 2505.11349) and wrong afterwards. Copy-only baselines show what the model adds to copying, or "
    "fails to match: context parroting and Nadaraya-Watson regression over motifs of 10 steps, with the same "
    "history. Values are relative to the true future (error: MASE of these windows) with 95 % intervals over "
    "systems; the last bracket of a baseline is its difference from the model. Above 0, a forecast copies "
    "more, is more seasonal, or reverts to the mean faster than the true future."
)
CHAOS_CLAIMS: Final = (
    "The claims below ablate the sharpest and the most diffuse heads by attention in the windows above: 30 % "
    "of each sublayer, against three random draws; intervals are over systems."
)
ATTENTION: Final[Caption] = (
    "Attention of every head",
    "Means over windows, for heads over time with a query that has at least two keys (others are blank; "
    "sublayers without such heads are left out). The band (within one position of the query's own time) and "
    "the dominant period of each context (its multiples, within half a position) are relative to a head that "
    "attends evenly: 0 is chance. The files written by tsprune explain contain the intervals.",
)
KERNEL: Final[Caption] = (
    "Does stable rank predict the kernel bandwidth?",
    "Softmax attention is Nadaraya-Watson regression, and the paper reads stable rank, which needs no data, "
    "as the bandwidth of its kernel. If so, the effective number of keys and the spread rise with stable "
    "rank, and sharpness falls. Each point is a head (hollow: of an encoder); intervals of Spearman's rho "
    "and p-values are over heads.",
)
INDUCTION: Final[Caption] = (
    "Which heads detect repetitions?",
    "Blocks of random values are repeated. The score is the attention of a head to the successors of the "
    "same values, minus that in sequences without repetition; it is 0 for a head that attends by distance. "
    "The heads shown have the highest scores of all, which is partly luck; brackets are 95 % intervals over "
    "sequences. Right: correlation of the score with the change of parroting; rho is negative if such heads "
    "make forecasts copy (95 % intervals over heads).",
)
RANKED: Final[Caption] = (
    "Which heads make the forecast copy?",
    "Each head is ablated alone; heads are in order of the change of parroting, the correlation of the "
    "forecast with the most similar segment of its context. Bars are 95 % intervals over configurations for "
    f"one head at a time: one in twenty excludes 0 by chance. {_AXIS} A table below lists all heads.",
)
PORTRAIT: Final = (
    "Attention in one real window (the one with the clearest season that this model's positions resolve, if "
    "any), the attention of its last position, and the lag profile averaged over all windows, against a head "
    "that attends evenly (dotted). Then forecasts with and without the head, in order of how far the "
    "ablation moves their median: the median window, the 90th percentile, and the maximum."
)
STREAM: Final[Caption] = (
    "The residual stream",
    "Measured at the position that is read out (in an encoder: the last of the context). The paper describes "
    "early layers that propose, middle layers that repeat and late layers that select: a cosine above 0 "
    "repeats the update of the layer before, a cosine below 0 reverses it. The lens is the model's own "
    f"readout with all later layers ablated. {INTERVALS}",
)
SIMILARITY: Final[Caption] = (
    "Similarity of layers",
    "Linear CKA of the outputs of two layers over windows: 1 if both arrange the windows alike, up to "
    "rotation and scale. CKA is biased upward for few windows; each title gives the chance level. Blank: a "
    "layer whose output is the same in all windows.",
)
PARTS_HEADING: Final = "Contribution of each component to the forecast"
PARTS: Final = (
    "The forecast is attributed to the components that wrote to the residual stream, by integrated gradients "
    "of the readout; shares sum to the whole forecast. A negative share opposes the rest."
)
PARTS_ENCODER: Final = (
    "Only the decoder writes to that stream. Information from the encoder reaches it through the decoder's "
    "cross-attention and counts for the heads that read it. The lower panel attributes the contribution of "
    "these heads to the encoder components that wrote their input (attention weights and norms held fixed)."
)


def heads_at(percent: float) -> Caption:
    """For figures of `heads@` at `percent` % loss."""
    at = f"heads@{percent:g}pp"
    return (
        f"Heads that must stay ({at})",
        f"{at} of an attention sublayer is the number of heads left after removing, in stable-rank order, as "
        f"many as keep the score within {percent:g} % of the intact model. Blue: order and number are chosen "
        "on held-out windows. Grey: on the reported windows themselves, as in the paper. Outlines show all "
        "heads: the lower a bar in its outline, the more redundant the sublayer.",
    )


def heads_at_compared(percent: float) -> Caption:
    """For the first question."""
    return (
        f"1. How many heads does each layer need? (heads@{percent:g}pp)",
        f"Heads that must stay in each layer, out of all its heads, for a loss of at most {percent:g} %; the "
        "paler a cell, the more redundant the heads. They are chosen on calibration series and reported on "
        "others, or chosen on the test windows as in the paper; the interval of the latter's change ignores "
        "that selection.",
    )


def svd_pruning(windows: str) -> Caption:
    """For the second question; `windows` says how many windows were looked at."""
    return (
        "2. Do attention maps choose heads better than weights?",
        "Stable rank of W_Q W_K^T against the stable rank of attention maps on windows (from their SVD), "
        "from either end, with the same counts per sublayer, and the same random draws. "
        f"{windows} Attention maps with a single query (the decoder of a model that forecasts in one step) "
        "have no such rank; there, both rankings take the same heads. Bars are 95 % intervals.",
    )


def agreement(windows: str) -> Caption:
    """For the scores; `windows` says how many windows were looked at."""
    return (
        "Which scores predict the effect of ablation?",
        "Spearman correlation of each score with the measured effect of ablating single heads or MLPs. Its "
        "sign is turned so that a score right of 0 identifies the redundant end. Scores are computed on "
        "calibration series and effects on the others; the effect measured on calibration series shows the "
        "best possible value. Bars are 95 % bootstrap intervals over components. Filled markers are "
        f"significant after Holm's correction over all scores. {windows}",
    )
