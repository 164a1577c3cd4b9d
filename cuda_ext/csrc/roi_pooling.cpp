#include "roi_pooling.h"

#include <algorithm>

#include "parallel.h"

namespace equilidar {
namespace {

constexpr int64_t kRowsPerChunk = 64;
constexpr int64_t kChannelsPerChunk = 16;  // a cache line of floats

}  // namespace

template <typename T>
void neighbor_max_cpu(const T* features, int64_t num_features, int64_t channels, const int64_t* rows, int64_t num,
                      int64_t neighbors, T* maximum, int64_t* argument) {
  parallel_for(num, kRowsPerChunk, [&](int64_t i) {
    T* const best = maximum + i * channels;
    int64_t* const from = argument + i * channels;
    bool found = false;
    for (int64_t k = 0; k < neighbors; ++k) {
      const int64_t row = rows[i * neighbors + k];
      if (!is_neighbor(row, num_features)) continue;
      const T* const values = features + row * channels;
      if (!found) {
        std::copy_n(values, channels, best);
        std::fill_n(from, channels, row);
        found = true;
        continue;
      }
      for (int64_t c = 0; c < channels; ++c) {
        const bool better = replaces(values[c], best[c]);
        best[c] = better ? values[c] : best[c];
        from[c] = better ? row : from[c];
      }
    }
    if (!found) {
      std::fill_n(best, channels, T(0));
      std::fill_n(from, channels, int64_t{-1});
    }
  });
}

template <typename T>
void neighbor_max_backward_cpu(const T* grad, const int64_t* argument, int64_t num, int64_t channels, T* grad_features) {
  // Several rows may point to one feature: a task owns channels, and adds in the order of the rows.
  parallel_chunks(channels, kChannelsPerChunk, [&](int64_t begin, int64_t end) {
    for (int64_t i = 0; i < num; ++i) {
      for (int64_t c = begin; c < end; ++c) {
        const int64_t row = argument[i * channels + c];
        if (row >= 0) grad_features[row * channels + c] += grad[i * channels + c];
      }
    }
  });
}

#define EQL_INSTANTIATE(T)                                                                                              \
  template void neighbor_max_cpu(const T*, int64_t, int64_t, const int64_t*, int64_t, int64_t, T*, int64_t*);           \
  template void neighbor_max_backward_cpu(const T*, const int64_t*, int64_t, int64_t, T*);
EQL_INSTANTIATE(float)
EQL_INSTANTIATE(double)
#undef EQL_INSTANTIATE

}  // namespace equilidar
