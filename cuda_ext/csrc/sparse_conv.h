// Sparse 3D convolution over a rulebook and its weight's gradient: see equilidar/ops/sparse_conv.py.
#pragma once

#include "portable.h"
#include "workspace.h"

namespace equilidar {

// Pairs of rows under each kernel offset: those of offset k are [starts[k], starts[k + 1]), sorted by target row.
// `center` is the offset that maps every row to itself and has no pairs listed, -1 for none. Pointers other than
// `starts` are of the features' device.
struct RowPairs {
  const int32_t* sources;
  const int32_t* targets;
  const int64_t* starts;
  int64_t num_offsets, center;

  EQL_HD int64_t size() const { return starts[num_offsets]; }
};

// The weight w(o, k, i) of out channel o, offset k and in channel i, in any memory order: the adjoint's weight is a view.
template <typename T>
struct WeightView {
  const T* data;
  int64_t out_channels, in_channels;
  int64_t out_stride, offset_stride, in_stride;

  EQL_HD T operator()(int64_t o, int64_t k, int64_t i) const {
    return data[o * out_stride + k * offset_stride + i * in_stride];
  }
};

// out (num_targets, out_channels) = sum over pairs of features (., in_channels) times the offset's matrix.
template <typename T>
void convolve_cpu(const T* features, WeightView<T> weight, RowPairs pairs, int64_t num_targets, T* out);

// out (out_channels, num_offsets, in_channels) = sum over pairs of outer products grad[target] x features[source].
template <typename T>
void weight_grad_cpu(const T* features, const T* grad, RowPairs pairs, int64_t num_sources, int64_t num_targets,
                     int64_t in_channels, int64_t out_channels, T* out);

// On CUDA the dtype is a value, for the host's compiler has no half types; sums are float32, of doubles double.
enum class Dtype { kFloat, kDouble, kHalf, kBFloat16 };

struct WeightStrides {
  int64_t out_channels, in_channels, out, offset, in;
};

void convolve_cuda(Dtype dtype, const void* features, const void* weight, const WeightStrides& strides,
                   const RowPairs& pairs, int64_t num_targets, void* out, Workspace& workspace, Stream stream);
void weight_grad_cuda(Dtype dtype, const void* features, const void* grad, const RowPairs& pairs, int64_t num_targets,
                      int64_t in_channels, int64_t out_channels, void* out, Workspace& workspace, Stream stream);

}  // namespace equilidar
