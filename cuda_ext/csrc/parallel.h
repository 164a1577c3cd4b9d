// Parallel loops on the CPU, over torch's own OpenMP threads: torch.set_num_threads is respected.
#pragma once

#include <omp.h>

#include <cstdint>

namespace equilidar {

// Call body(begin, end) for chunks of `grain` indices of [0, n). Chunks do not depend on the number of threads, so a
// body that reduces within its chunk gives the same bits with any number of them. Serial inside another parallel loop.
template <typename Body>
void parallel_chunks(int64_t n, int64_t grain, const Body& body) {
  const int64_t chunks = (n + grain - 1) / grain;
#pragma omp parallel for schedule(dynamic, 1) if (chunks > 1 && !omp_in_parallel())
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    const int64_t begin = chunk * grain;
    body(begin, begin + grain < n ? begin + grain : n);
  }
}

// Call body(i) for each i of [0, n).
template <typename Body>
void parallel_for(int64_t n, int64_t grain, const Body& body) {
  parallel_chunks(n, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) body(i);
  });
}

}  // namespace equilidar
