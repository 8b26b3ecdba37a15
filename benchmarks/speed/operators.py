"""The share of each of torch's operators in a training step."""

from dataclasses import dataclass
from pathlib import Path

from measure import synchronise
from networks import NetworkMeasurement
from torch.autograd.profiler_util import FunctionEventAvg
from torch.profiler import ProfilerActivity, profile


@dataclass
class Operators(NetworkMeasurement):
    """Torch's operators with the largest own time in a training step.

    Under torch.profiler, on random slices, half of them labelled; on a GPU, the GPU's time.
    """

    preset: str = "guided"
    size: int = 128
    top: int = 15  # operators to show
    trace: Path | None = None  # file for a trace of all steps, for chrome://tracing

    def run(self) -> None:
        self.print_origin()
        step, gpu = self.training_step(self.preset, self.size), self.fabric().device.type == "cuda"
        step()  # allocates, chooses kernels
        activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * gpu
        with profile(activities=activities) as profiler:
            for _ in range(self.rounds):
                step()
            synchronise()
        if self.trace:
            profiler.export_chrome_trace(str(self.trace))

        def own(event: FunctionEventAvg) -> float:
            return event.self_device_time_total if gpu else event.self_cpu_time_total

        events = sorted(profiler.key_averages(), key=own, reverse=True)
        total = sum(own(event) for event in events)
        print(f"`{self.preset}`, {self.batch} slices of {self.size}\n")
        print("| operator | share | ms a step | calls a step |\n|---|---:|---:|---:|")
        for event in events[: self.top]:
            milliseconds = own(event) / 1000 / self.rounds
            print(
                f"| {event.key} | {own(event) / total:.1%} | {milliseconds:.1f} | "
                f"{event.count / self.rounds:.0f} |"
            )
