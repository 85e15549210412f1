"""What pictures and tables of an explanation show and how to read them: the words beside them."""

from __future__ import annotations

INTERVALS = "Bars and brackets are 95 % intervals over configurations."
PORTRAIT = (
    "Attention in one real window (the one with the clearest season, if there is one of a season that "
    "this model's positions can tell), what the last position of it looks at, and how far back the head "
    "looks on average over all windows, against a head that attends evenly (dotted). Then forecasts with "
    "the head and without it, chosen by how far the ablation moves their median: the typical window of "
    "those looked at, one that only one in ten exceeds, and the one moved most."
)
STREAM = (
    "At the position that is read (in an encoder: the context's last). Early layers propose, middle layers "
    "repeat and late layers select, says the paper: a cosine above 0 repeats the layer before, below 0 takes "
    f"back. The lens is the model's own readout with all later layers switched off. {INTERVALS}"
)
SIMILARITY = (
    "Linear CKA of what two layers leave, over windows: 1 if windows lie alike in both, up to rotation "
    "and scale. Few windows raise it; what it is by chance is in the titles. Blank: a layer that is the "
    "same for all windows."
)
PARTS = (
    "What the network says next, divided among what wrote to the stream that is read: integrated "
    "gradients of the readout, which add up to the whole forecast. A share below 0 was written against "
    "the rest. "
)
ENCODER = (
    "Only the decoder writes to that stream. What the encoder found reaches it through the decoder's "
    "cross-attention and counts as written by the heads that fetched it; below, what these wrote is "
    "divided once more, among the parts of the encoder that had written what they read (attention and "
    "norms are held at what they were). "
)
ATTENDED = (
    "Means over windows, of heads over time whose queries have two keys or more to choose from (blank: "
    "others; kinds of sublayers that have none are left out). An even head's share is taken off the band "
    "(within one position of the query's own time) and off the dominant period of each context (multiples"
    " of it, to half a position): 0 is chance. Intervals are in the files that tsprune explain writes."
)
KERNEL = (
    "Softmax attention is Nadaraya-Watson regression, and the paper reads stable rank, which needs no "
    "data, as the bandwidth of its kernel. Then points rise with it for keys and spread, and fall for "
    "sharpness. A point is a head (hollow: of an encoder); intervals of Spearman's rho and p are over heads."
)
INDUCTION = (
    "Blocks of random values, repeated: how much more a head attends to what followed the same values "
    "before than in sequences that do not repeat (0: it goes by distance, or does not look). The heads "
    "shown are the highest of all, which is partly luck; brackets are 95 % intervals over sequences. "
    "Right: whether such heads make forecasts copy; if they do, rho is below 0 (95 % intervals over "
    "heads)."
)
RANKED = (
    "Each head ablated alone, in order of how far parroting falls: the correlation of the forecast with "
    "the most similar piece of its context. Bars are 95 % intervals over configurations of one head at a "
    "time; of many heads, one in twenty leaves out 0 by chance. The axis of changes is linear close to "
    "zero and logarithmic beyond. All heads in this order are in a table below."
)
CHAOS = (
    "Chaotic systems nearly return and then part: copying what followed is hard to beat for a while "
    "(arXiv 2505.11349), and wrong after. So beside the model stand forecasters that only copy and see as"
    " much history: context parroting and Nadaraya-Watson regression over motifs of 10 steps. Numbers are"
    " over the true future's (error: MASE of these windows) with 95 % intervals over systems; of the "
    "copiers, in brackets, also minus the model's. Above 0 a forecast copies more, is more seasonal, or "
    "reverts faster to the mean than what came."
)
CHAOS_CLAIMS = (
    "The heads that are sharpest and most diffuse on the windows above, ablated here: three tenths of "
    "each sublayer's, against three random draws; intervals are over systems."
)
