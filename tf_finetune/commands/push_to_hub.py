"""`tf-finetune push-to-hub`: the best checkpoint and a model card, as a repository on the Hugging Face hub."""

from pathlib import Path
from typing import Any

from tf_finetune import hub, json_files, settings
from tf_finetune.commands.description import evaluation_of, label_names
from tf_finetune.commands.model_card import evaluation_in, model_card
from tf_finetune.commands.restore import temperature_of
from tf_finetune.errors import InputError
from tf_finetune.workdir import Workdir


def push_to_hub(workdir: str | Path, repo_id: str, *, private: bool = False) -> str:
    """Uploads the best checkpoint with a model card, in one commit; files of other names stay as they are.

    Args:
        workdir: of a training run; its evaluation.json and report.json, when they are there, go into the card.
        repo_id: `OWNER/NAME`; made when it is not there.
        private: nobody else may see it.

    Returns:
        The address of the repository.

    Raises:
        InputError: no trained model, no token, not a name, refused, or a public repository where a private one
            was asked for.
        HubUnreachable: no connection.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, constants, get_token

    run = Workdir(workdir)
    folder = run.best_checkpoint()
    config = settings.load_json(run.config)
    if repo_id.count("/") != 1:
        raise InputError("not a name on the hub", where="--repo", expected="OWNER/NAME", got=repo_id)
    if get_token() is None:
        raise InputError("no token for the hub", where=repo_id, expected=hub.LOG_IN)
    report = _report(run, folder)
    evaluation = evaluation_of(run) or (evaluation_in(report) if report else {})
    card = model_card(repo_id, config, label_names(folder), evaluation, temperature_of(folder), report)
    _create(repo_id, private=private)
    weights = hub.weight_files([path.name for path in folder.iterdir()])
    files = [folder / name for name in ("config.json", *hub.TOKENIZER, *weights) if (folder / name).is_file()]
    additions = [CommitOperationAdd("README.md", card.encode())]
    additions += [CommitOperationAdd(file.name, str(file)) for file in files]
    with hub.named_faults(repo_id, "model"):
        HfApi().create_commit(repo_id, additions, commit_message=f"{folder.name}, by tf_finetune")
    address = f"{constants.ENDPOINT}/{repo_id}"
    print(f"pushed {folder} to {address}")
    return address


def _report(run: Workdir, checkpoint: Path) -> dict[str, Any] | None:
    """What report.json says of the checkpoint, if it is of that one."""
    if not run.report_facts.is_file():
        return None
    found = json_files.read_object(run.report_facts)
    try:
        _ = found["summary"]["headline"], found["summary"]["sentences"], evaluation_in(found)
        return found if found["run"]["checkpoint"] == checkpoint.name else None
    except (KeyError, TypeError, AttributeError):
        what, expected = "not a report", "what `tf-finetune report` wrote"
        raise InputError(what, where=run.report_facts, expected=expected) from None


def _create(repo_id: str, *, private: bool) -> None:
    from huggingface_hub import HfApi

    try:
        info = hub.repository_info(repo_id)
    except hub.NotOnHub:
        with hub.named_faults(repo_id, "model"):
            HfApi().create_repo(repo_id, private=private, exist_ok=True)
        return
    if private and not info.private:
        raise InputError("the repository is public", where=repo_id, expected="a new name, or no --private")
