"""The machines on which gains were measured (see ``benchmarks/README.md``)."""

from jscan._jax.names import JAX_VERSION
from jscan._optimizer.costs.budget import MEBIBYTE
from jscan._optimizer.costs.machine import Machine
from jscan._optimizer.costs.unrolling import Launches, NativeLoops

_CPU = Machine(
    batch_start=12_000,
    whole_start=2_400,
    # By JAX 0.12 a product that is read twice is divided among threads.
    stored_start=2_400 if JAX_VERSION < (0, 11) else 12_000,
    whole_products=3 * 2**14,
    # Waking a thread takes 30 to 65 microseconds where its core slept.
    threads_start=31_000,
    # To hand a program over takes 1 to 7 microseconds if calls follow each other at
    # once, 65 to 90 with a busy neighbour, 110 after half a millisecond; batches save
    # two to six times as much as is estimated where a step handles single numbers.
    dispatch_start=30_000,
    dispatched_flops=1000,
    threaded_elements=800,
    threaded_work=4,
    # XLA makes one function of a loop whose body moves little. Any other step takes 0.4
    # to 0.6 microseconds more, whatever it computes.
    called_step=400.0,
    product_bytes=2048,
    calls_vectors=JAX_VERSION < (0, 11),
    function_bytes=1024 if JAX_VERSION < (0, 11) else 0,
    # 60 pairs of loops, of which one has more calls: 0.45 to 2.3 us a step.
    most_calls=8 if JAX_VERSION < (0, 11) else 0,
    queued_step=500.0,
    ready_calls=8,
    # Fewer rows may make a step one function, as it is by JAX 0.12 anyway: a gradient
    # of 8 numbers less took 0.16 times as long, there 2 times.
    smallest_again=1 if JAX_VERSION < (0, 11) else 2,
    # JAX 0.10's CPU compiler calls a function even for small products.
    whole_dot=(0, 0) if JAX_VERSION < (0, 11) else (2048, 4096),
    vector_call=25.0 if JAX_VERSION < (0, 11) else -20.0,
    vector_added=1.3 if JAX_VERSION < (0, 11) else 0.6,
    rows_call=(40, 50.0) if JAX_VERSION < (0, 11) else (0, 0.0),
    inner_call=(60, 75.0) if JAX_VERSION < (0, 11) else (0, 0.0),
    # Its compiler does not vectorise the rounds of a generator within a loop.
    drawn_number=20.0 if JAX_VERSION < (0, 11) else 0.0,
    # By JAX 0.12 draws of 2 to 64 numbers for 100 to 462 steps were 0.3 to 0.9 times as
    # fast at once, for 1,000 steps 0.9 to 1.4 times; single numbers 1.2 to 2.7 times.
    drawn_start=0 if JAX_VERSION < (0, 11) else 60_000,
    # A softmax of 64 numbers takes 360 to 510 ns longer, 50 to 90 by JAX 0.12; a sum of
    # 128 exponentials 30 to 70 ns, there nothing.
    reduced_element=1.5 if JAX_VERSION < (0, 11) else 0.5,
    reduced_sum=(60, 45.0, 0.05) if JAX_VERSION < (0, 11) else (1, 0.0, 0.05),
    reduced_most=0.8 if JAX_VERSION < (0, 11) else 0.45,
    several_reduced=350.0 if JAX_VERSION < (0, 11) else 0.0,
    several_sliced=(150.0, 100.0) if JAX_VERSION < (0, 11) else (60.0, 0.0),
    # The two ends of 94 numbers were 0.86 times as fast side by side, there 1.1 to 1.2.
    pads_between=JAX_VERSION < (0, 11),
    # A sine that is added up takes 8 ns in a step, 2 to 4 in a batch, one alone 5 to 8.
    fused_sine=0.0 if JAX_VERSION < (0, 11) else 3.0,
    # Sums of 64 to 1000 numbers 1.3 to 5 times as fast, softmaxes and layer norms, too.
    # JAX 0.10's compiler calls for each of several.
    long_row=40 if JAX_VERSION < (0, 11) else 64,
    long_functions=40 if JAX_VERSION < (0, 11) else 96,
    long_rows=64,
    # Sums of rows of 16 products take 1.1 to 1.6 times as long as the product, of 24
    # 1.3 to 2.6 times, of 48 2 to 6.
    smallest_side=16,
    small_dot=1024,
    small_sum=2304,
    # Up to 4 times as fast, in steps that become one function by it.
    small_columns=600,
    # Of more numbers 0.15 to 0.9 times as fast; rows of 16 to 40 each added up by
    # itself 0.25 to 0.9 times.
    longest_sum=32,
    longest_row=15,
    # Sums of 16 to 32 numbers are 0.7 times as fast there, of 8 and 12 1.05 times.
    filling=0 if JAX_VERSION < (0, 11) else 12,
    fused_dot=512,
    merged_dot=128 * 512,
    merged_rows=8,
    # With 38 steps and 17 numbers a loop was 0.6 to 0.9 times as fast.
    merged_steps=64,
    # Of 2 to 8 rows, as one product: 0.6 to 0.9 times as fast, by JAX 0.10 0.9 to 3.4.
    merges_tiny=JAX_VERSION < (0, 11),
    # Two of 50 to 200 numbers: 0.5 to 0.97 times as fast as one product; by JAX 0.10
    # 0.85 to 1.0 times of 50 numbers or in up to 40 steps, otherwise 1.0 to 1.2.
    added_vectors=10_000 if JAX_VERSION < (0, 11) else 0,
    # Two states of 10 to 128 numbers: 1.4 to 2.5 times as fast, by JAX 0.12 as fast.
    carried_dot=600 if JAX_VERSION < (0, 11) else 2304,
    fewest_lags=8,
    threaded_dot=2**19,
    threaded_vector=2**19 if JAX_VERSION < (0, 11) else 0,
    # A step gains 0.1 ns per element and more with rows, but 0.01 ns without.
    transposed_rows=8,
    transposed_vector=256,
    # 1.1 to 3 times as fast; with longer rows, or fewer results, 0.2 to 1.0 times.
    transposed_inner=32 if JAX_VERSION < (0, 11) else 48,
    smallest_outer_product=64,
    # With 64 rows taking sums out was 0.8 to 1.15 times as fast, with 32 up to 1.4.
    full_rows=64,
    # Columns that fill no register whole are done one by one.
    register_bytes=32 if JAX_VERSION < (0, 11) else 64,
    unrolling=NativeLoops(
        shortest=64,
        # Steps left over take up to 2 us: 286 to 850 were 0.85 to 1.08 times as fast.
        with_rest=1000,
        rest_arrays=6,
        factor=4,
        numbers=400,
        rows=32,
        high_factor=8,
        high_numbers=64,
        # Of three states 3,000 steps were 1.39 times as fast by four, 1.23 by eight.
        high_work=12,
        arrays=120,
        # XLA makes one function of an iteration that touches less than 1 KB.
        many_arrays=256,
        without_rows=16 * 2**10,
    ),
    # Two small loops as one: JAX 0.10's CPU compiler takes only a very small step into
    # one native loop, and a step with products leaves it sooner when it does more.
    joined_bytes=512 if JAX_VERSION < (0, 11) else 8192,
    joined_dot=1024 if JAX_VERSION >= (0, 11) else 0,
    # What reads slices of a row is not vectorised, nor by JAX 0.12 a large tanh in a
    # native loop. A barrier mends both there; JAX 0.10 drops it.
    cut_rows=64 if JAX_VERSION < (0, 12) else 0,
    whole_rows=64 if JAX_VERSION >= (0, 12) else 0,
)

# One NVIDIA H200. An iteration takes 7 to 15 microseconds whatever it does, so that the
# fewer there are the better; work that leaves a loop costs next to nothing there.
_GPU = Machine(
    small_dot=512,
    small_sum=512,
    fused_dot=512,
    unrolling=Launches(
        shortest=64, factor=16, operations=128, largest_dot=64 * 512 * 512
    ),
    joined_bytes=64 * MEBIBYTE,
    joined_dot=64 * 512 * 512,
    associates=True,
)

# By JAX's name of the backend, and the compiler's of the platform. Tests put others in.
MEASURED = {"cpu": _CPU, "gpu": _GPU, "cuda": _GPU}


def machine_for(platform: str) -> Machine:
    """The cost constants of a platform; of one that was not measured, cautious ones."""
    return MEASURED.get(platform, Machine())


def is_measured(platform: str) -> bool:
    """Whether the gains of the rewrites were measured on a platform."""
    return platform in MEASURED
