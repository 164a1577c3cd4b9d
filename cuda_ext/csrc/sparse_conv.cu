// A tile of output rows stays in registers while all kernel offsets add to it: input rows are gathered into shared memory
// through a neighbour table, empty neighbours as zeros, and nothing between the two reaches memory. Half types multiply on
// tensor cores. No atomics: every sum has one owner and one order.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <mma.h>

#include <type_traits>

#include "sort.cuh"
#include "sparse_conv.h"

namespace equilidar {
namespace {

constexpr int kTile = 64;   // rows and columns of an output tile
constexpr int kDepth = 16;  // of the product that is in shared memory at a time
constexpr int kSkew = 8;    // elements between rows of shared memory, against bank conflicts; wmma wants 16 bytes
constexpr int kLine = kTile + kSkew;
constexpr int64_t kPartPairs = 4096;  // pairs of an offset that are worth a partial sum of their own
constexpr int64_t kMaxParts = 32;

template <typename T>
__device__ T from_float(float x) {
  return static_cast<T>(x);
}
template <>
__device__ __half from_float<__half>(float x) {
  return __float2half_rn(x);
}
template <>
__device__ __nv_bfloat16 from_float<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}
template <typename T, typename S>
__device__ T rounded(S sum) {
  if constexpr (std::is_same_v<T, S>) {
    return sum;
  } else {
    return from_float<T>(sum);
  }
}

// C (kTile, kTile) += A^T B of two pieces (kDepth, kTile) in shared memory, by 256 threads with 4 x 4 sums each.
template <typename T>
struct Multiplier {
  using Sum = T;
  static constexpr int kTileRows = 1;  // sums go from registers to memory
  Sum sums[4][4] = {};

  __device__ void add(const T (*a)[kLine], const T (*b)[kLine]) {
    const int row = threadIdx.x / 16 * 4, column = threadIdx.x % 16 * 4;
#pragma unroll
    for (int d = 0; d < kDepth; ++d) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) sums[i][j] = fma(a[d][row + i], b[d][column + j], sums[i][j]);
      }
    }
  }

  template <typename Store>
  __device__ void store(Sum (*)[kTile], const Store& put) {
    const int row = threadIdx.x / 16 * 4, column = threadIdx.x % 16 * 4;
    for (int i = 0; i < 4; ++i) {
      for (int j = 0; j < 4; ++j) put(row + i, column + j, sums[i][j]);
    }
  }
};

// The same on tensor cores: 8 warps with 16 x 32 sums each, in float32.
template <typename T>
struct HalfMultiplier {
  using Sum = float;
  static constexpr int kTileRows = kTile;
  using Fragment = nvcuda::wmma::fragment<nvcuda::wmma::accumulator, 16, 16, 16, float>;
  Fragment sums[2];

  __device__ HalfMultiplier() {
    for (Fragment& sum : sums) nvcuda::wmma::fill_fragment(sum, 0.0f);
  }

  __device__ void add(const T (*a)[kLine], const T (*b)[kLine]) {
    namespace wmma = nvcuda::wmma;
    const int warp = threadIdx.x / 32, row = warp / 2 * 16, column = warp % 2 * 32;
    wmma::fragment<wmma::matrix_a, 16, 16, 16, T, wmma::col_major> left;
    wmma::load_matrix_sync(left, &a[0][row], kLine);
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      wmma::fragment<wmma::matrix_b, 16, 16, 16, T, wmma::row_major> right;
      wmma::load_matrix_sync(right, &b[0][column + 16 * j], kLine);
      wmma::mma_sync(sums[j], left, right, sums[j]);
    }
  }

  template <typename Store>
  __device__ void store(Sum (*tile)[kTile], const Store& put) {
    const int warp = threadIdx.x / 32, row = warp / 2 * 16, column = warp % 2 * 32;
    for (int j = 0; j < 2; ++j) {
      nvcuda::wmma::store_matrix_sync(&tile[row][column + 16 * j], sums[j], kTile, nvcuda::wmma::mem_row_major);
    }
    __syncthreads();
    for (int i = threadIdx.x; i < kTile * kTile; i += blockDim.x) put(i / kTile, i % kTile, tile[i / kTile][i % kTile]);
  }
};

template <typename T>
using MultiplierOf = std::conditional_t<std::is_same_v<T, float> || std::is_same_v<T, double>, Multiplier<T>, HalfMultiplier<T>>;

// table (num_offsets, num_targets), filled with -1 before.
__global__ void table_kernel(const int32_t* sources, const int32_t* targets, const int64_t* starts, int64_t num_offsets,
                             int64_t num_pairs, int64_t num_targets, int32_t* table) {
  const int64_t p = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (p >= num_pairs) return;
  // The last offset that starts at or before p.
  int64_t low = 0, high = num_offsets;
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    if (starts[middle] <= p) {
      low = middle;
    } else {
      high = middle;
    }
  }
  table[low * num_targets + targets[p]] = sources[p];
}

__global__ void identity_kernel(int32_t* line, int64_t num) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (i < num) line[i] = static_cast<int32_t>(i);
}

template <typename T>
__global__ void __launch_bounds__(256)
    convolve_kernel(const T* features, const T* weight, WeightStrides w, const int32_t* table, int64_t num_offsets,
                    int64_t num_targets, T* out) {
  __shared__ alignas(32) T a[kDepth][kLine], b[kDepth][kLine];
  __shared__ alignas(32) typename MultiplierOf<T>::Sum tile[MultiplierOf<T>::kTileRows][kTile];
  __shared__ int32_t sources[kTile];
  const int64_t first_row = blockIdx.x * static_cast<int64_t>(kTile), first_column = blockIdx.y * static_cast<int64_t>(kTile);
  MultiplierOf<T> multiplier;
  for (int64_t k = 0; k < num_offsets; ++k) {
    bool is_used = false;
    if (threadIdx.x < kTile) {
      const int64_t row = first_row + threadIdx.x;
      const int32_t source = row < num_targets ? table[k * num_targets + row] : -1;
      sources[threadIdx.x] = source;
      is_used = source >= 0;
    }
    if (!__syncthreads_or(is_used)) continue;
    for (int64_t depth = 0; depth < w.in_channels; depth += kDepth) {
      // Consecutive threads read consecutive channels of a row; of the weight, whichever of its axes is contiguous.
      for (int i = threadIdx.x; i < kDepth * kTile; i += blockDim.x) {
        const int d = i % kDepth, row = i / kDepth;
        const int32_t source = sources[row];
        a[d][row] = source >= 0 && depth + d < w.in_channels ? features[source * w.in_channels + depth + d] : T(0.0f);
        const int bd = w.in == 1 ? d : i / kTile, column = w.in == 1 ? row : i % kTile;
        b[bd][column] = depth + bd < w.in_channels && first_column + column < w.out_channels
                            ? weight[(first_column + column) * w.out + k * w.offset + (depth + bd) * w.in]
                            : T(0.0f);
      }
      __syncthreads();
      multiplier.add(a, b);
      __syncthreads();
    }
  }
  multiplier.store(tile, [&](int row, int column, auto sum) {
    if (first_row + row < num_targets && first_column + column < w.out_channels) {
      out[(first_row + row) * w.out_channels + first_column + column] = rounded<T>(sum);
    }
  });
}

// Sums of one part of one offset's pairs: parts (num_parts, out_channels, num_offsets, in_channels).
template <typename T>
__global__ void __launch_bounds__(256)
    weight_grad_kernel(const T* features, const T* grad, const int32_t* sources, const int32_t* targets, const int64_t* starts,
                       int64_t num_offsets, int64_t center, int64_t num_targets, int64_t in_channels, int64_t out_channels,
                       int64_t num_parts, typename MultiplierOf<T>::Sum* parts) {
  __shared__ alignas(32) T a[kDepth][kLine], b[kDepth][kLine];
  __shared__ alignas(32) typename MultiplierOf<T>::Sum tile[MultiplierOf<T>::kTileRows][kTile];
  const int64_t columns = (in_channels + kTile - 1) / kTile;
  const int64_t first_out = blockIdx.x / columns * kTile, first_in = blockIdx.x % columns * kTile;
  const int64_t k = blockIdx.y, part = blockIdx.z;
  const bool is_center = k == center;
  const int64_t begin = is_center ? 0 : starts[k], end = is_center ? num_targets : starts[k + 1];
  const int64_t length = (end - begin + num_parts - 1) / num_parts;
  const int64_t first = begin + part * length, last = min_of(first + length, end);
  MultiplierOf<T> multiplier;
  for (int64_t start = first; start < last; start += kDepth) {
    for (int i = threadIdx.x; i < kDepth * kTile; i += blockDim.x) {
      const int d = i / kTile, column = i % kTile;
      const int64_t p = start + d;
      const bool exists = p < last;
      const int64_t source = !exists ? 0 : is_center ? p : sources[p], target = !exists ? 0 : is_center ? p : targets[p];
      a[d][column] = exists && first_out + column < out_channels ? grad[target * out_channels + first_out + column] : T(0.0f);
      b[d][column] = exists && first_in + column < in_channels ? features[source * in_channels + first_in + column] : T(0.0f);
    }
    __syncthreads();
    multiplier.add(a, b);
    __syncthreads();
  }
  multiplier.store(tile, [&](int row, int column, auto sum) {
    const int64_t o = first_out + row, i = first_in + column;
    if (o < out_channels && i < in_channels) parts[((part * out_channels + o) * num_offsets + k) * in_channels + i] = sum;
  });
}

template <typename T, typename S>
__global__ void sum_parts_kernel(const S* parts, int64_t num_parts, int64_t size, T* out) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (i >= size) return;
  S total = 0;
  for (int64_t part = 0; part < num_parts; ++part) total += parts[part * size + i];
  out[i] = rounded<T>(total);
}

const int64_t* to_device(const int64_t* host, int64_t count, Workspace& workspace, cudaStream_t stream) {
  int64_t* const device = workspace.get<int64_t>(count);
  check_cuda(cudaMemcpyAsync(device, host, count * sizeof(int64_t), cudaMemcpyHostToDevice, stream), "sparse_conv");
  return device;
}

template <typename T>
void convolve(const T* features, const T* weight, const WeightStrides& strides, const RowPairs& pairs, int64_t num_targets,
              T* out, Workspace& workspace, cudaStream_t stream) {
  if (num_targets == 0) return;
  const int64_t num_offsets = pairs.num_offsets, num_pairs = pairs.size();
  int32_t* const table = workspace.get<int32_t>(num_offsets * num_targets);
  check_cuda(cudaMemsetAsync(table, 0xff, num_offsets * num_targets * sizeof(int32_t), stream), "sparse_conv");
  if (num_pairs > 0) {
    const int64_t* const starts = to_device(pairs.starts, num_offsets + 1, workspace, stream);
    table_kernel<<<blocks_for(num_pairs), kThreads, 0, stream>>>(pairs.sources, pairs.targets, starts, num_offsets, num_pairs,
                                                                num_targets, table);
    check_launch("sparse_conv");
  }
  if (pairs.center >= 0) {
    identity_kernel<<<blocks_for(num_targets), kThreads, 0, stream>>>(table + pairs.center * num_targets, num_targets);
    check_launch("sparse_conv");
  }
  const dim3 grid(blocks_for(num_targets, kTile), blocks_for(strides.out_channels, kTile));
  convolve_kernel<T><<<grid, 256, 0, stream>>>(features, weight, strides, table, num_offsets, num_targets, out);
  check_launch("sparse_conv");
}

template <typename T>
void weight_grad(const T* features, const T* grad, const RowPairs& pairs, int64_t num_targets, int64_t in_channels,
                 int64_t out_channels, T* out, Workspace& workspace, cudaStream_t stream) {
  using Sum = typename MultiplierOf<T>::Sum;
  const int64_t num_offsets = pairs.num_offsets, size = out_channels * num_offsets * in_channels;
  if (size == 0) return;
  int64_t most = pairs.center >= 0 ? num_targets : 0;
  for (int64_t k = 0; k < num_offsets; ++k) most = max_of(most, pairs.starts[k + 1] - pairs.starts[k]);
  const int64_t num_parts = min_of(kMaxParts, max_of<int64_t>(1, most / kPartPairs));
  const int64_t* const starts = to_device(pairs.starts, num_offsets + 1, workspace, stream);
  Sum* const parts = workspace.get<Sum>(num_parts * size);
  const dim3 grid(blocks_for(out_channels, kTile) * blocks_for(in_channels, kTile), static_cast<unsigned>(num_offsets),
                  static_cast<unsigned>(num_parts));
  weight_grad_kernel<T><<<grid, 256, 0, stream>>>(features, grad, pairs.sources, pairs.targets, starts, num_offsets,
                                                 pairs.center, num_targets, in_channels, out_channels, num_parts, parts);
  check_launch("sparse_conv_weight_grad");
  sum_parts_kernel<<<blocks_for(size), kThreads, 0, stream>>>(parts, num_parts, size, out);
  check_launch("sparse_conv_weight_grad");
}

template <typename Body>
void dispatch(Dtype dtype, const Body& body) {
  switch (dtype) {
    case Dtype::kFloat: return body(float{});
    case Dtype::kDouble: return body(double{});
    case Dtype::kHalf: return body(__half{});
    case Dtype::kBFloat16: return body(__nv_bfloat16{});
  }
}

}  // namespace

void convolve_cuda(Dtype dtype, const void* features, const void* weight, const WeightStrides& strides,
                   const RowPairs& pairs, int64_t num_targets, void* out, Workspace& workspace, Stream stream) {
  dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    convolve(static_cast<const T*>(features), static_cast<const T*>(weight), strides, pairs, num_targets,
             static_cast<T*>(out), workspace, stream_of(stream));
  });
}

void weight_grad_cuda(Dtype dtype, const void* features, const void* grad, const RowPairs& pairs, int64_t num_targets,
                      int64_t in_channels, int64_t out_channels, void* out, Workspace& workspace, Stream stream) {
  dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    weight_grad(static_cast<const T*>(features), static_cast<const T*>(grad), pairs, num_targets, in_channels, out_channels,
                static_cast<T*>(out), workspace, stream_of(stream));
  });
}

}  // namespace equilidar
