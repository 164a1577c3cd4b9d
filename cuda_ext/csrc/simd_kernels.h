// The inner loops of sparse convolution in as many instruction sets as the compiler knows, chosen when first called.
#pragma once

#include <cstdint>

namespace equilidar {

// Matrices with rows padded to a multiple of this many elements can be read and written by every variant.
constexpr int64_t kPadding = 16;

inline int64_t padded(int64_t channels) { return (channels + kPadding - 1) / kPadding * kPadding; }

template <typename T>
struct ConvKernels {
  // tile[targets[p] - first] += features[sources[p]] * matrix for p of [0, num_pairs); sources may be null: then it is
  // the rows first, first + 1, ... and tile is overwritten. matrix is (depth, width), tile (., width), width padded.
  void (*multiply_rows)(const T* features, int64_t depth, const T* matrix, int64_t width, const int32_t* sources,
                        const int32_t* targets, int64_t num_pairs, int64_t first, T* tile);
  // sums (height, width) += sum over r of the outer product of left[r] (height) and right[r] (width), width padded.
  void (*add_outer_products)(const T* const* left, int64_t height, const T* const* right, int64_t width,
                             int64_t num_rows, T* sums);
};

template <typename T>
const ConvKernels<T>& conv_kernels();

// The variants: each stands in a file of its own.
namespace avx512 {
extern const ConvKernels<float> kFloat;
extern const ConvKernels<double> kDouble;
}  // namespace avx512
namespace avx2 {
extern const ConvKernels<float> kFloat;
extern const ConvKernels<double> kDouble;
}  // namespace avx2
namespace generic {
extern const ConvKernels<float> kFloat;
extern const ConvKernels<double> kDouble;
}  // namespace generic

}  // namespace equilidar
