#include "device_sort.h"
#include "launch.cuh"
#include "point_tree.h"

namespace equilidar {
namespace {

constexpr int kBoundBlocks = 64;

// Lowest and highest coordinates, one row of six for each block; minima and maxima do not depend on the order.
template <typename T>
__global__ void bounds_kernel(const T* xyz, int64_t num, T* partial) {
  __shared__ T shared[6][kThreads];
  constexpr T kFar = kLargest<T>;
  T bounds[6] = {kFar, kFar, kFar, -kFar, -kFar, -kFar};
  for (int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; i < num;
       i += static_cast<int64_t>(gridDim.x) * blockDim.x) {
    if (!is_finite(xyz + 3 * i)) continue;
    for (int axis = 0; axis < 3; ++axis) {
      bounds[axis] = min_of(bounds[axis], xyz[3 * i + axis]);
      bounds[3 + axis] = max_of(bounds[3 + axis], xyz[3 * i + axis]);
    }
  }
  for (int side = 0; side < 6; ++side) shared[side][threadIdx.x] = bounds[side];
  for (int half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x >= half) continue;
    for (int side = 0; side < 6; ++side) {
      T& own = shared[side][threadIdx.x];
      const T other = shared[side][threadIdx.x + half];
      own = side < 3 ? min_of(own, other) : max_of(own, other);
    }
  }
  if (threadIdx.x < 6) partial[6 * blockIdx.x + threadIdx.x] = shared[threadIdx.x][0];
}

template <typename T>
__global__ void join_bounds_kernel(T* partial, int num) {
  if (threadIdx.x >= 6) return;
  T bound = partial[threadIdx.x];
  for (int i = 1; i < num; ++i) {
    const T other = partial[6 * i + threadIdx.x];
    bound = threadIdx.x < 3 ? min_of(bound, other) : max_of(bound, other);
  }
  partial[threadIdx.x] = bound;
}

template <typename T>
__global__ void keys_kernel(
    const T* xyz, int64_t num, const int64_t* offsets, int64_t num_items, const T* bounds, uint64_t* keys) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (i >= num) return;
  keys[i] = morton_key(xyz + 3 * i, bounds, cells_per_metre(bounds, bounds + 3), item_of(i, offsets, num_items));
}

template <typename T>
__global__ void leaves_kernel(
    const T* xyz, const uint32_t* order, int64_t num, int64_t num_leaves, PointGroup<T>* leaves, BoxGroup<T>* boxes,
    int64_t num_slots) {
  const int64_t leaf = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (leaf >= num_slots) return;
  BoxGroup<T>& group = boxes[leaf / kFan];
  const int slot = static_cast<int>(leaf % kFan);
  if (leaf >= num_leaves) {
    empty_box(group, slot);
    return;
  }
  fill_leaf(xyz, order, num, leaf, leaves[leaf]);
  bound_leaf(leaves[leaf], group, slot);
}

template <typename T>
__global__ void boxes_kernel(const BoxGroup<T>* below, int64_t num_below, BoxGroup<T>* boxes, int64_t num_slots) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (i >= num_slots) return;
  BoxGroup<T>& group = boxes[i / kFan];
  const int slot = static_cast<int>(i % kFan);
  if (i < num_below) {
    bound_group(below[i], group, slot);
  } else {
    empty_box(group, slot);
  }
}

}  // namespace

template <typename T>
SortedRows morton_order_cuda(
    const T* xyz, int64_t num, const int64_t* offsets, int64_t num_items, Workspace& workspace, Stream stream) {
  T* const bounds = workspace.get<T>(6 * kBoundBlocks);
  uint64_t* const keys = workspace.get<uint64_t>(num);
  if (num > 0) {
    bounds_kernel<<<kBoundBlocks, kThreads, 0, stream_of(stream)>>>(xyz, num, bounds);
    join_bounds_kernel<<<1, 32, 0, stream_of(stream)>>>(bounds, kBoundBlocks);
    keys_kernel<<<blocks_for(num), kThreads, 0, stream_of(stream)>>>(xyz, num, offsets, num_items, bounds, keys);
    check_launch("morton_order");
  }
  return sort_rows_cuda(keys, num, workspace, stream);
}

template <typename T>
PointTree<T> build_tree_cuda(
    const T* xyz, int64_t num, const int64_t* offsets, int64_t num_items, Workspace& workspace, Stream stream) {
  const uint32_t* const order = morton_order_cuda(xyz, num, offsets, num_items, workspace, stream).rows;
  const TreeShape shape(num);
  PointGroup<T>* const leaves = workspace.get<PointGroup<T>>(shape.leaves);
  BoxGroup<T>* boxes = workspace.get<BoxGroup<T>>(shape.groups[0]);
  PointTree<T> tree{leaves, {boxes}, shape.levels, num};
  const cudaStream_t on = stream_of(stream);
  if (num > 0) {
    const int64_t slots = shape.groups[0] * kFan;
    leaves_kernel<<<blocks_for(slots), kThreads, 0, on>>>(xyz, order, num, shape.leaves, leaves, boxes, slots);
  }
  for (int level = 1; level < shape.levels; ++level) {
    const BoxGroup<T>* const below = boxes;
    boxes = workspace.get<BoxGroup<T>>(shape.groups[level]);
    tree.boxes[level] = boxes;
    const int64_t slots = shape.groups[level] * kFan;
    boxes_kernel<<<blocks_for(slots), kThreads, 0, on>>>(below, shape.groups[level - 1], boxes, slots);
  }
  check_launch("build_tree");
  return tree;
}

template SortedRows morton_order_cuda(const float*, int64_t, const int64_t*, int64_t, Workspace&, Stream);
template SortedRows morton_order_cuda(const double*, int64_t, const int64_t*, int64_t, Workspace&, Stream);
template PointTree<float> build_tree_cuda(const float*, int64_t, const int64_t*, int64_t, Workspace&, Stream);
template PointTree<double> build_tree_cuda(const double*, int64_t, const int64_t*, int64_t, Workspace&, Stream);

}  // namespace equilidar
