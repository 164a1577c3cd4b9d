#include "launch.cuh"
#include "roi_pooling.h"

namespace equilidar {
namespace {

// One thread for each channel of each row: neighbouring threads read neighbouring channels.
template <typename T>
__global__ void neighbor_max_kernel(const T* features, int64_t num_features, int64_t channels, const int64_t* rows,
                                    int64_t num, int64_t neighbors, T* maximum, int64_t* argument) {
  const int64_t at = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (at >= num * channels) return;
  const int64_t i = at / channels, c = at - i * channels;
  T best = 0;
  int64_t from = -1;
  for (int64_t k = 0; k < neighbors; ++k) {
    const int64_t row = rows[i * neighbors + k];
    if (!is_neighbor(row, num_features)) continue;
    const T value = features[row * channels + c];
    if (from >= 0 && !replaces(value, best)) continue;
    best = value;
    from = row;
  }
  maximum[at] = best;
  argument[at] = from;
}

template <typename T>
__global__ void neighbor_max_backward_kernel(const T* grad, const int64_t* argument, int64_t num, int64_t channels,
                                             T* grad_features) {
  const int64_t at = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (at >= num * channels || argument[at] < 0) return;
  atomicAdd(grad_features + argument[at] * channels + at % channels, grad[at]);
}

}  // namespace

template <typename T>
void neighbor_max_cuda(const T* features, int64_t num_features, int64_t channels, const int64_t* rows, int64_t num,
                       int64_t neighbors, T* maximum, int64_t* argument, Stream stream) {
  if (num * channels == 0) return;
  neighbor_max_kernel<<<blocks_for(num * channels), kThreads, 0, stream_of(stream)>>>(
      features, num_features, channels, rows, num, neighbors, maximum, argument);
  check_launch("neighbor_max");
}

template <typename T>
void neighbor_max_backward_cuda(const T* grad, const int64_t* argument, int64_t num, int64_t channels, T* grad_features,
                                Stream stream) {
  if (num * channels == 0) return;
  neighbor_max_backward_kernel<<<blocks_for(num * channels), kThreads, 0, stream_of(stream)>>>(
      grad, argument, num, channels, grad_features);
  check_launch("neighbor_max_backward");
}

#define EQL_INSTANTIATE(T)                                                                                             \
  template void neighbor_max_cuda(const T*, int64_t, int64_t, const int64_t*, int64_t, int64_t, T*, int64_t*, Stream); \
  template void neighbor_max_backward_cuda(const T*, const int64_t*, int64_t, int64_t, T*, Stream);
EQL_INSTANTIATE(float)
EQL_INSTANTIATE(double)
#undef EQL_INSTANTIATE

}  // namespace equilidar
