"""Stand-ins for a stage: what they do is the job's `params["do"]`."""

import os
import signal
import time

from harness.executor import Job, Outcome
from harness.stage import Ranks


def run(job: Job, ranks: Ranks) -> Outcome:
    """Answer with facts about the process as the outcome's reason, fail, or die."""
    match job.params["do"]:
        case "facts":
            names = ("OMP_NUM_THREADS", "THP_MEM_ALLOC_ENABLE", "TOKENIZERS_PARALLELISM")
            facts = " ".join(os.environ[name] for name in names)
            return Outcome(key=job.key, status="done", reason=f"{os.getpid()} {facts}")
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "raise":
            raise OSError("the store is gone")
        case "diverge":
            return Outcome(key=job.key, status="failed", failure_class="diverged", reason="not finite at step 3")
        case "sleep":
            time.sleep(job.params["seconds"])
        case "sum":
            return Outcome(key=job.key, status="done", reason=_sum_of_ranks(ranks))
        case "one dies" if ranks.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        case "one dies":
            return _wait_for_peer(job, ranks)
    return Outcome(key=job.key, status="done")


def _sum_of_ranks(ranks: Ranks) -> str:
    import torch
    import torch.distributed as dist

    total = torch.tensor(float(ranks.rank + 1))
    dist.all_reduce(total)
    return f"rank {ranks.rank} of {ranks.world}, {dist.get_backend()}, sum {total.item():g}"


def _wait_for_peer(job: Job, ranks: Ranks) -> Outcome:
    try:
        return Outcome(key=job.key, status="done", reason=_sum_of_ranks(ranks))
    except RuntimeError as error:
        return Outcome(key=job.key, status="failed", failure_class="method", reason=str(error).splitlines()[0])
