// Channel-wise maximum over given neighbours: see equilidar/ops/roi_pooling.py.
#pragma once

#include "portable.h"

namespace equilidar {

// Whether a neighbour's value replaces the best so far: the first of equal ones stays, and so does the first that is
// not a number.
template <typename T>
EQL_HD bool replaces(T value, T best) {
  return value > best || (value != value && best == best);
}

// Rows outside of the features stand for no neighbour.
EQL_HD bool is_neighbor(int64_t row, int64_t num_features) { return row >= 0 && row < num_features; }

// features is (num_features, channels), rows (num, neighbors); maximum and argument are (num, channels).
template <typename T>
void neighbor_max_cpu(const T* features, int64_t num_features, int64_t channels, const int64_t* rows, int64_t num,
                      int64_t neighbors, T* maximum, int64_t* argument);
template <typename T>
void neighbor_max_cuda(const T* features, int64_t num_features, int64_t channels, const int64_t* rows, int64_t num,
                       int64_t neighbors, T* maximum, int64_t* argument, Stream stream);

// Adds grad (num, channels) to grad_features (num_features, channels), zero before, where argument points. On the CPU
// the same bits with any number of threads; on CUDA in no fixed order.
template <typename T>
void neighbor_max_backward_cpu(const T* grad, const int64_t* argument, int64_t num, int64_t channels, T* grad_features);
template <typename T>
void neighbor_max_backward_cuda(const T* grad, const int64_t* argument, int64_t num, int64_t channels, T* grad_features,
                                Stream stream);

}  // namespace equilidar
