import numpy as np

from tf_finetune.bert.architecture import BertArchitecture
from tf_finetune.bert.flops import forward_flops, step_flops

SIZES = BertArchitecture(hidden_size=4, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16)


def test_equal_a_count_by_hand():
    # Three texts of 5 tokens. The first layer: 15 tokens through four 4 x 4 matrices, and through 4 x 16 and back; then
    # for each text and head 5 x 2 by 2 x 5, and 5 x 5 by 5 x 2. The last: 15 tokens through three 4 x 4 matrices, one
    # token a text through the others. At the end 3 texts through 4 x 4 and 4 x 2.
    first = 15 * 4 * 4 * 4 + 2 * 15 * 4 * 16 + 3 * 2 * (5 * 2 * 5 + 5 * 5 * 2)
    last = 15 * 3 * 4 * 4 + 3 * 4 * 4 + 2 * 3 * 4 * 16 + 3 * 2 * (1 * 2 * 5 + 1 * 5 * 2)
    expected = 2 * (first + last + 3 * 4 * 4 + 3 * 4 * 2)
    assert forward_flops(SIZES, batch_size=3, length=5) == expected
    assert step_flops(SIZES, batch_size=3, length=5) == 3 * expected
    expected = 2 * (2 * first + 3 * 4 * 4 + 3 * 4 * 2)
    assert forward_flops(SIZES, batch_size=3, length=5, first_only=False) == expected


def test_what_is_not_trained_costs_less():
    sizes = {"batch_size": 3, "length": 5}
    whole, first = step_flops(SIZES, **sizes), 15 * 4 * 4 * 4 + 2 * 15 * 4 * 16 + 3 * 2 * (5 * 2 * 5 + 5 * 5 * 2)
    assert step_flops(SIZES, **sizes, frozen_layers=1, frozen_embeddings=True) == whole - 2 * 2 * first
    assert step_flops(SIZES, **sizes, frozen_embeddings=True) == whole
    of_first, of_last = 15 * 4 * 4 * 4 + 2 * 15 * 4 * 16, 15 * 3 * 4 * 4 + 3 * 4 * 4 + 2 * 3 * 4 * 16
    assert step_flops(SIZES, **sizes, frozen_layers=1) == whole - 2 * of_first  # the embeddings' gradient goes through
    assert step_flops(SIZES, **sizes, lora=True) == whole - 2 * (of_first + of_last)
    head = 2 * (3 * 4 * 4 + 3 * 4 * 2)
    nothing_but_head = forward_flops(SIZES, **sizes) + 2 * head
    assert step_flops(SIZES, **sizes, frozen_layers=2, lora=True) == nothing_but_head


def test_many_batches_at_once():
    found = step_flops(SIZES, batch_size=np.array([3, 1]), length=np.array([5, 7]))
    assert found.tolist() == [step_flops(SIZES, batch_size=3, length=5), step_flops(SIZES, batch_size=1, length=7)]
