from tf_finetune.evaluation.overfitting import signs


def curves(trained, validated):
    """Records of metrics.jsonl: (accuracy, loss) of training and of validation at the end of each epoch of 10 steps."""
    records = [{"split": "validation", "step": 0, "accuracy": 0.5, "loss": 0.7}]
    for epoch, (ours, theirs) in enumerate(zip(trained, validated, strict=True), start=1):
        for split, (accuracy, loss) in (("train", ours), ("validation", theirs)):
            records.append({"split": split, "step": 10 * epoch, "accuracy": accuracy, "loss": loss})
    return records


def test_a_good_run_has_none():
    records = curves([(0.7, 0.6), (0.8, 0.45), (0.85, 0.4)], [(0.75, 0.5), (0.81, 0.44), (0.84, 0.41)])
    assert signs(records, best_step=30) == []


def test_an_overfitted_run_is_told_in_words():
    records = curves([(0.7, 0.6), (0.9, 0.3), (0.99, 0.05)], [(0.75, 0.5), (0.78, 0.52), (0.76, 0.9)])
    rise, gap, after = signs(records, best_step=20)
    assert rise.startswith("The loss on validation was least at step 10 (0.500) and rose to 0.900 by step 30")
    assert "90.0% when that on validation was 78.0%: up to 12 points" in gap
    assert after.startswith("Validation was best at step 20 (accuracy 0.7800) and ended at accuracy 0.7600")


def test_a_rising_loss_alone_is_no_overfitting():
    records = curves([(0.7, 0.5), (0.6, 0.7)], [(0.75, 0.5), (0.6, 0.8)])
    assert not [sentence for sentence in signs(records, best_step=20) if sentence.startswith("The loss")]


def test_nothing_is_said_of_no_validation():
    assert signs([{"split": "train", "step": 10, "loss": 0.1, "accuracy": 1.0}], best_step=10) == []


def test_numbers():
    records = [
        {"split": split, "step": step, "loss": loss, "mean_absolute_error": loss}
        for step, ours, theirs in ((10, 0.5, 0.4), (20, 0.1, 0.6))
        for split, loss in (("train", ours), ("validation", theirs))
    ]
    rise, after = signs(records, best_step=10)
    assert "rose to 0.600 by step 20" in rise
    assert "(mean squared error 0.4000)" in after


def test_the_metric_that_chose_is_told():
    records = curves([(0.7, 0.6), (0.8, 0.5)], [(0.75, 0.5), (0.78, 0.49)])
    records[2] |= {"f1": 0.6}
    records[4] |= {"f1": 0.5}
    (after,) = signs(records, best_step=10, best_metric="f1")
    assert after.startswith("Validation was best at step 10 (f1 0.6000) and ended at f1 0.5000 at step 20")


def test_records_of_skipped_steps_say_nothing():
    records = curves([(0.7, 0.6), (0.8, 0.45)], [(0.75, 0.5), (0.81, 0.44)])
    records.insert(1, {"split": "train", "step": 1})
    assert signs(records, best_step=20) == []
