"""What the README beside an export tells its reader to run."""

import json
import re
import shlex

from tf_finetune.serving import rest


def blocks(readme, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", readme, flags=re.DOTALL | re.MULTILINE)


def commands(readme):
    """The words of each command, as a shell would read them."""
    return [shlex.split(block.replace("\\\n", "")) for block in blocks(readme, "sh")]


def requests(readme):
    """(address, body) of each POST: an entry an example, by input, and for tokens."""
    posts = [words for words in commands(readme) if words[:2] == ["curl", "-d"]]
    return [(words[3], json.loads(words[2])) for words in posts]


def inputs_of(body, keys):
    """The signature a body is for and its inputs by key, as the server reads them."""
    return rest.inputs_of(json.dumps(body), keys)
