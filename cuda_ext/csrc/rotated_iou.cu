#include "launch.cuh"
#include "rotated_iou.h"

namespace equilidar {
namespace {

constexpr int kTileA = 8, kTileB = 32;
constexpr int64_t kMaxRows = 65535 * kTileA;  // what the grid's second dimension holds

template <typename T>
__global__ void rotated_iou_kernel(const T* a, int64_t num_a, const T* b, int64_t num_b, bool volume, T* iou) {
  __shared__ OverlapBox tile_a[kTileA], tile_b[kTileB];
  const int64_t first_a = blockIdx.y * static_cast<int64_t>(kTileA), first_b = blockIdx.x * static_cast<int64_t>(kTileB);
  const int thread = threadIdx.y * kTileB + threadIdx.x;
  if (thread < kTileB && first_b + thread < num_b) tile_b[thread] = prepare_overlap(b + 7 * (first_b + thread));
  // By another warp.
  const int other = thread - kTileB;
  if (other >= 0 && other < kTileA && first_a + other < num_a) tile_a[other] = prepare_overlap(a + 7 * (first_a + other));
  __syncthreads();
  const int64_t i = first_a + threadIdx.y, j = first_b + threadIdx.x;
  if (i >= num_a || j >= num_b) return;
  const OverlapBox& one = tile_a[threadIdx.y];
  const OverlapBox& two = tile_b[threadIdx.x];
  const bool near = circles_meet(two.x - one.x, two.y - one.y, one.radius + two.radius);
  iou[i * num_b + j] = near ? static_cast<T>(iou_of_pair(one, two, volume)) : T(0);
}

template <typename T>
__global__ void rotated_iou_pairs_kernel(const T* a, const T* b, int64_t num, bool volume, T* iou) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (i < num) iou[i] = static_cast<T>(iou_of_pair(prepare_overlap(a + 7 * i), prepare_overlap(b + 7 * i), volume));
}

template <typename T>
__global__ void axis_aligned_iou_kernel(const T* a, int64_t num_a, const T* b, int64_t num_b, T* iou) {
  __shared__ AlignedBox<T> tile_a[kTileA], tile_b[kTileB];
  const int64_t first_a = blockIdx.y * static_cast<int64_t>(kTileA), first_b = blockIdx.x * static_cast<int64_t>(kTileB);
  const int thread = threadIdx.y * kTileB + threadIdx.x;
  if (thread < kTileB && first_b + thread < num_b) tile_b[thread] = prepare_aligned(b + 7 * (first_b + thread));
  const int other = thread - kTileB;
  if (other >= 0 && other < kTileA && first_a + other < num_a) tile_a[other] = prepare_aligned(a + 7 * (first_a + other));
  __syncthreads();
  const int64_t i = first_a + threadIdx.y, j = first_b + threadIdx.x;
  if (i < num_a && j < num_b) iou[i * num_b + j] = aligned_iou(tile_a[threadIdx.y], tile_b[threadIdx.x]);
}

// Call launch(first row of a, number of rows, grid) until all rows are covered.
template <typename Launch>
void each_launch(int64_t num_a, int64_t num_b, const Launch& launch) {
  for (int64_t first = 0; first < num_a && num_b > 0; first += kMaxRows) {
    const int64_t rows = min_of(kMaxRows, num_a - first);
    launch(first, rows, dim3(blocks_for(num_b, kTileB), blocks_for(rows, kTileA)));
  }
}

}  // namespace

template <typename T>
void rotated_iou_cuda(const T* a, int64_t num_a, const T* b, int64_t num_b, bool volume, T* iou, Stream stream) {
  each_launch(num_a, num_b, [&](int64_t first, int64_t rows, dim3 grid) {
    rotated_iou_kernel<<<grid, dim3(kTileB, kTileA), 0, stream_of(stream)>>>(
        a + 7 * first, rows, b, num_b, volume, iou + first * num_b);
    check_launch("rotated_iou");
  });
}

template <typename T>
void rotated_iou_pairs_cuda(const T* a, const T* b, int64_t num, bool volume, T* iou, Stream stream) {
  if (num == 0) return;
  rotated_iou_pairs_kernel<<<blocks_for(num), kThreads, 0, stream_of(stream)>>>(a, b, num, volume, iou);
  check_launch("rotated_iou_pairs");
}

template <typename T>
void axis_aligned_iou_cuda(const T* a, int64_t num_a, const T* b, int64_t num_b, T* iou, Stream stream) {
  each_launch(num_a, num_b, [&](int64_t first, int64_t rows, dim3 grid) {
    axis_aligned_iou_kernel<<<grid, dim3(kTileB, kTileA), 0, stream_of(stream)>>>(
        a + 7 * first, rows, b, num_b, iou + first * num_b);
    check_launch("axis_aligned_iou");
  });
}

#define EQL_INSTANTIATE(T)                                                                       \
  template void rotated_iou_cuda(const T*, int64_t, const T*, int64_t, bool, T*, Stream);        \
  template void rotated_iou_pairs_cuda(const T*, const T*, int64_t, bool, T*, Stream);           \
  template void axis_aligned_iou_cuda(const T*, int64_t, const T*, int64_t, T*, Stream);
EQL_INSTANTIATE(float)
EQL_INSTANTIATE(double)
#undef EQL_INSTANTIATE

}  // namespace equilidar
