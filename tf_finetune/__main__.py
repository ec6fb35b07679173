"""`python -m tf_finetune` is `tf-finetune`."""

import sys

from tf_finetune.cli import main

sys.exit(main())
