#include "launch.cuh"
#include "points_in_boxes.h"

namespace equilidar {
namespace {

// One block of threads for each box and run of points.
template <typename T>
__global__ void membership_kernel(const T* points, int64_t num_points, const T* boxes, bool* inside) {
  __shared__ PreparedBox<T> box;
  if (threadIdx.x == 0) box = prepare_box(boxes + 7 * blockIdx.y);
  __syncthreads();
  const int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (i < num_points) inside[blockIdx.y * num_points + i] = contains(box, points + 3 * i);
}

constexpr int kTile = 128;  // boxes in shared memory

// One thread for each point. A block walks through the boxes of all items of which it has points; a thread heeds those
// of its own item.
template <typename T>
__global__ void points_in_boxes_kernel(const T* points, const int64_t* point_offsets, int64_t num_points, const T* boxes,
                                       const int64_t* box_offsets, int64_t num_items, int64_t* first, int64_t* counts) {
  __shared__ PreparedBox<T> tile[kTile];
  __shared__ int found[kTile];
  const int64_t block_begin = blockIdx.x * static_cast<int64_t>(blockDim.x);
  const int64_t block_last = min_of<int64_t>(block_begin + blockDim.x, num_points) - 1;
  const int64_t tiles_begin = box_offsets[item_of(block_begin, point_offsets, num_items)];
  const int64_t tiles_end = box_offsets[item_of(block_last, point_offsets, num_items) + 1];
  const int64_t i = block_begin + threadIdx.x;
  const int64_t item = item_of(min_of(i, block_last), point_offsets, num_items);
  const int64_t begin = box_offsets[item], end = i <= block_last ? box_offsets[item + 1] : begin;
  int64_t lowest = -1;
  for (int64_t start = tiles_begin; start < tiles_end; start += kTile) {
    const int size = static_cast<int>(min_of<int64_t>(kTile, tiles_end - start));
    for (int k = threadIdx.x; k < size; k += blockDim.x) {
      tile[k] = prepare_box(boxes + 7 * (start + k));
      found[k] = 0;
    }
    __syncthreads();
    const int low = static_cast<int>(max_of<int64_t>(begin - start, 0));
    const int high = static_cast<int>(min_of<int64_t>(end - start, size));
    for (int k = low; k < high; ++k) {
      if (!contains(tile[k], points + 3 * i)) continue;
      if (lowest < 0) lowest = start + k;
      atomicAdd(found + k, 1);
    }
    __syncthreads();
    for (int k = threadIdx.x; k < size; k += blockDim.x) {
      // Sums of integers: the same in any order.
      if (found[k] > 0) atomicAdd(reinterpret_cast<unsigned long long*>(counts + start + k), found[k]);
    }
    __syncthreads();
  }
  if (i <= block_last) first[i] = lowest;
}

}  // namespace

template <typename T>
void membership_cuda(const T* points, int64_t num_points, const T* boxes, int64_t num_boxes, bool* inside, Stream stream) {
  // The grid's second dimension holds at most 65,535 boxes.
  constexpr int64_t kMaxBoxes = 65535;
  for (int64_t first = 0; first < num_boxes && num_points > 0; first += kMaxBoxes) {
    const dim3 grid(blocks_for(num_points), static_cast<unsigned>(min_of(kMaxBoxes, num_boxes - first)));
    membership_kernel<<<grid, kThreads, 0, stream_of(stream)>>>(
        points, num_points, boxes + 7 * first, inside + first * num_points);
    check_launch("membership");
  }
}

template <typename T>
void points_in_boxes_cuda(const T* points, const int64_t* point_offsets, int64_t num_points, const T* boxes,
                          const int64_t* box_offsets, int64_t num_items, int64_t* first, int64_t* counts, Stream stream) {
  if (num_points == 0) return;
  points_in_boxes_kernel<<<blocks_for(num_points), kThreads, 0, stream_of(stream)>>>(
      points, point_offsets, num_points, boxes, box_offsets, num_items, first, counts);
  check_launch("points_in_boxes");
}

template void membership_cuda(const float*, int64_t, const float*, int64_t, bool*, Stream);
template void membership_cuda(const double*, int64_t, const double*, int64_t, bool*, Stream);
template void points_in_boxes_cuda(const float*, const int64_t*, int64_t, const float*, const int64_t*, int64_t, int64_t*,
                                   int64_t*, Stream);
template void points_in_boxes_cuda(const double*, const int64_t*, int64_t, const double*, const int64_t*, int64_t,
                                   int64_t*, int64_t*, Stream);

}  // namespace equilidar
